"""What torch_openreg offers to people who test a PyTorch device: the conformance kit."""

"""The driver (L0): the table of a HAL library, called directly."""

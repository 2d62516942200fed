// Visibility of the torch side's public symbols: everything else stays hidden.
#pragma once

#define OPENREG_API __attribute__((visibility("default")))

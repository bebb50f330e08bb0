/* The micro-kernels of one instruction set, for double and for float; included by _microkernels.h. Float's use some of double's. */
#define REAL double
#define LANE_BYTES 8
#include "_microkernels_isa_real.h"
#define REAL float
#define LANE_BYTES 4
#include "_microkernels_isa_real.h"

#undef ISA
#undef VECTOR_BYTES
#undef X86
#undef FORWARD_OUTPUTS
#undef BACKWARD_OUTPUTS
#undef BACKWARD_VECTORS

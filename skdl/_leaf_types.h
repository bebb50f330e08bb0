/* The leaf loops of one instruction set, for float and for double; included by _leaves.h. */
#define REAL float
#define LANE_BYTES 4
#include "_leaf.h"
#define REAL double
#define LANE_BYTES 8
#include "_leaf.h"

#undef LEVEL
#undef VECTOR_BYTES
#undef X86
#undef FORWARD_CLASSES
#undef BACKWARD_CLASSES
#undef BACKWARD_VECTORS

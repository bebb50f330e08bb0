/* The leaf loops of one instruction set, for float and for double; included by _leaves.h. */
#define REAL float
#define LANE_BYTES 4
#define INT int32_t
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define ROUNDING 12582912.0
#define LOG2_HIGH 0.693145751953125
#define LOG2_LOW 1.428606765330187e-06
#define EXP_DEGREE 7
#define LOG_TERMS 5
#include "_leaf.h"
#undef REAL
#undef LANE_BYTES
#undef INT
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef ROUNDING
#undef LOG2_HIGH
#undef LOG2_LOW
#undef EXP_DEGREE
#undef LOG_TERMS

#define REAL double
#define LANE_BYTES 8
#define INT int64_t
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define ROUNDING 6755399441055744.0
#define LOG2_HIGH 0.693147180369123816490
#define LOG2_LOW 1.90821492927058770002e-10
#define EXP_DEGREE 13
#define LOG_TERMS 10
#include "_leaf.h"
#undef REAL
#undef LANE_BYTES
#undef INT
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef ROUNDING
#undef LOG2_HIGH
#undef LOG2_LOW
#undef EXP_DEGREE
#undef LOG_TERMS

#undef LEVEL
#undef LEVEL_NAME
#undef VECTOR_BYTES
#undef X86
#undef FORWARD_CLASSES
#undef BACKWARD_CLASSES
#undef BACKWARD_VECTORS

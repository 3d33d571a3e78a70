/* A board's functions for a test's program. */
#include <stdint.h>

int receive(void *bytes, int number); /* from standard input; returns 0 at its end */
void send(const void *bytes, int number);
uint32_t ticks(void); /* 0 if nothing counts instructions */

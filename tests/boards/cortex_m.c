/* Bare metal on QEMU's MPS2 boards: start-up, and input and output through Arm's semihosting. */
#include "board.h"

enum { SYS_OPEN = 1, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT = 0x18, APPLICATION_EXIT = 0x20026, READ_BINARY = 1, WRITE_BINARY = 5 };
#define TIMER ((volatile uint32_t *)0x40000000) /* CMSDK's: control, value, reload. It counts down at 25 MHz */
#define CPACR (*(volatile uint32_t *)0xe000ed88)

extern uint32_t stack_end;
int main(void);
void reset(void);

__attribute__((section(".vectors"), used)) static const struct {
    const void *stack;
    void (*reset)(void);
} vectors = {&stack_end, reset};
static uintptr_t input, output;

static uintptr_t semihosting(uintptr_t operation, const void *arguments) {
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uintptr_t open_file(const char *name, uintptr_t mode, uintptr_t length) {
    uintptr_t arguments[3] = {(uintptr_t)name, mode, length};
    return semihosting(SYS_OPEN, arguments);
}

/* SYS_READ and SYS_WRITE return how many bytes are left. */
int receive(void *bytes, int number) {
    for (uintptr_t left = number, before; left > 0;) {
        uintptr_t arguments[3] = {input, (uintptr_t)bytes + number - left, before = left};
        if ((left = semihosting(SYS_READ, arguments)) == before)
            return 0;
    }
    return 1;
}

void send(const void *bytes, int number) {
    for (uintptr_t left = number; left > 0;) {
        uintptr_t arguments[3] = {output, (uintptr_t)bytes + number - left, left};
        left = semihosting(SYS_WRITE, arguments);
    }
}

uint32_t ticks(void) { return ~TIMER[1]; }

void reset(void) {
#ifdef __ARM_FP
    CPACR |= 0xf << 20; /* turn on the floating-point unit */
    __asm__ volatile("dsb\n isb");
#endif
    TIMER[2] = TIMER[1] = ~0u;
    TIMER[0] = 1;
    input = open_file("/dev/stdin", READ_BINARY, 10);
    output = open_file("/dev/stdout", WRITE_BINARY, 11);
    main();
    semihosting(SYS_EXIT, (const void *)APPLICATION_EXIT);
}

/* RISC-V under qemu-user, without a library: Linux system calls by number. */
#include "board.h"

enum { READ = 63, WRITE = 64, EXIT = 93 };

int main(void);

static long call(long number, long first, const void *bytes, long length) {
    register long a7 __asm__("a7") = number, a0 __asm__("a0") = first, a2 __asm__("a2") = length;
    register const void *a1 __asm__("a1") = bytes;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
    return a0;
}

int receive(void *bytes, int number) {
    for (int done = 0, got; done < number; done += got)
        if ((got = call(READ, 0, (char *)bytes + done, number - done)) <= 0)
            return 0;
    return 1;
}

void send(const void *bytes, int number) {
    for (int done = 0; done < number;)
        done += call(WRITE, 1, (const char *)bytes + done, number - done);
}

uint32_t ticks(void) { return 0; }

void _start(void) { call(EXIT, main(), 0, 0); }

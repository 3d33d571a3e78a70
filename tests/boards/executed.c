/* A plugin of QEMU: how often each instruction ran between two calls of ticks(). Its argument is ticks=ADDRESS.
 *
 * At the end it logs for each that ran: its address, how often it ran, and how often it was not the next in memory that followed.
 * Debian's package has no header of this interface, so its functions are declared here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
void qemu_plugin_outs(const char *);

int qemu_plugin_version = INTERFACE;

static struct instruction {
    struct instruction *other;
    uint64_t address, next, times, jumps;
} *instructions, *last;
static uint64_t ticks;
static int counting;

static void execute(unsigned cpu, void *instruction) {
    struct instruction *now = instruction;
    (void)cpu;
    if (counting && last->next != now->address)
        last->jumps++;
    if (now->address == ticks)
        counting = !counting;
    now->times += counting;
    last = now;
}

/* QEMU may translate an instruction more than once. */
static struct instruction *record(uint64_t address, size_t size) {
    struct instruction *one = instructions;
    while (one && one->address != address)
        one = one->other;
    if (!one) {
        one = calloc(1, sizeof *one);
        *one = (struct instruction){instructions, address, address + size, 0, 0};
        instructions = one;
    }
    return one;
}

static void translate(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        struct instruction *one = record(qemu_plugin_insn_vaddr(instruction), qemu_plugin_insn_size(instruction));
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, execute, 0, one);
    }
}

static void report(plugin_id id, void *data) {
    char line[80];
    (void)id, (void)data;
    for (const struct instruction *one = instructions; one; one = one->other)
        if (one->times) {
            snprintf(line, sizeof line, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", one->address, one->times, one->jumps);
            qemu_plugin_outs(line);
        }
}

int qemu_plugin_install(plugin_id id, const void *info, int number, char **arguments) {
    (void)info;
    if (number != 1 || sscanf(arguments[0], "ticks=%" SCNu64, &ticks) != 1)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}

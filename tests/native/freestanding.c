/* The client half as it will live inside unmodified programs: no libc, no thread-local storage, general registers only.
 *
 * usage: freestanding FRAMES_FD TICK_KHZ CPUS ROUNDS
 * Slot 0 is bound to a carrier of the C echo service, slot 1 never was, slot 2 was and no longer is.
 */
#include "client_side.h"

static struct hmk_wait_policy policy, blocking;
static struct hmk_link link, never_bound, unbound;
static uint8_t in[HMK_INLINE + 1], out[HMK_INLINE];

static int64_t plain(struct hmk_link *to, uint16_t operation) {
  struct hmk_message message = {.operation = operation};
  return hmk_call(to, &message);
}

static void replies_are_right(uint64_t rounds) {
  uint64_t seed = 88172645463325252u;
  for (uint64_t i = 0; i < rounds; i++) {
    struct hmk_message message = echo_message(in, out, &seed);
    CHECK(hmk_call(&link, &message) == HMK_OK);
    CHECK(echoed(&link, &message));
    CHECK(plain(&link, 0) == HMK_OK); /* the transport's own null call */
    CHECK(plain(&link, OP_NULL) == HMK_OK);
    struct hmk_message chain = {.operation = OP_CHAIN, .registers = 1, .returns = 1};
    CHECK(hmk_call(&link, &chain) == HMK_OK && link.rets[0] == 1);
  }
  CHECK(link.waits[0] + link.waits[1] + link.waits[2] == 4 * rounds);
}

static void refusals_are_told_apart(void) {
  struct hmk_message message = {.operation = OP_NULL, .registers = HMK_REGISTERS + 1};
  CHECK(plain(&link, OP_NONE) == HMK_E_BAD_OPERATION);
  CHECK(hmk_call(&link, &message) == HMK_E_BAD_FRAME);
  message = (struct hmk_message){.operation = OP_ECHO, .in = in, .in_length = HMK_INLINE + 1};
  CHECK(hmk_call(&link, &message) == HMK_E_NO_BUFFER);
  message = (struct hmk_message){.operation = OP_ECHO, .in = in, .in_length = 9, .out = out, .out_capacity = 8};
  CHECK(hmk_call(&link, &message) == HMK_E_TOO_BIG);
  link.depth = HMK_MAX_DEPTH;
  CHECK(plain(&link, OP_NULL) == HMK_E_TOO_DEEP);
  link.depth = 0;
  CHECK(plain(&unbound, OP_NULL) == HMK_E_UNBOUND);
  CHECK(hmk_resume(&link, &message) == HMK_E_BAD_FRAME);
  CHECK(hmk_cancel(&link) == HMK_E_BAD_FRAME);
  CHECK(plain(&link, OP_NULL) == HMK_OK);
}

static void deadline_passes_where_nobody_serves(void) {
  never_bound.deadline = hmk_ticks() + 2 * policy.tick_khz;
  CHECK(plain(&never_bound, OP_NULL) == HMK_E_DEADLINE);
  CHECK(hmk_ticks() + policy.tick_khz / 100 >= never_bound.deadline);
  CHECK(plain(&never_bound, OP_NULL) == HMK_E_BUSY);
}

/* Given up while its handler runs. */
static void abandoned_link_comes_back_with_the_reply(void) {
  struct hmk_message work = {.operation = OP_WORK, .registers = 1, .args = {200000000}};
  link.deadline = hmk_ticks() + policy.tick_khz;
  CHECK(hmk_call(&link, &work) == HMK_E_DEADLINE);
  CHECK(plain(&link, OP_NULL) == HMK_E_BUSY);
  await_ready(&link);
  link.deadline = 0;
  CHECK(plain(&link, OP_NULL) == HMK_OK);
}

/* Given up before the carrier has so much as woken: the carrier must let go of the slot all the same. */
static void link_given_up_at_once_comes_back(uint64_t rounds) {
  link.policy = &blocking;
  for (uint64_t i = 0; i < rounds; i++) {
    link.deadline = 1;
    int64_t status = plain(&link, OP_NULL);
    CHECK(status == HMK_OK || status == HMK_E_DEADLINE);
    await_ready(&link);
    link.deadline = 0;
    CHECK(plain(&link, OP_NULL) == HMK_OK);
  }
  link.policy = &policy;
}

__attribute__((used)) static void program(char **stack) {
  CHECK((long)stack[0] == 5);
  char **argv = stack + 1;
  struct hmk_slot *slots = map_frames((int)number(argv[1]));
  uint64_t rounds = number(argv[4]);
  hybrid_policy(&policy, number(argv[2]), (uint32_t)number(argv[3]));
  blocking.tick_khz = policy.tick_khz;
  blocking.cpus = policy.cpus;
  link.slot = &slots[0];
  never_bound.slot = &slots[1];
  unbound.slot = &slots[2];
  link.policy = never_bound.policy = unbound.policy = &policy;
  replies_are_right(rounds);
  refusals_are_told_apart();
  deadline_passes_where_nobody_serves();
  abandoned_link_comes_back_with_the_reply();
  link_given_up_at_once_comes_back(200);
  leave(0);
}

__asm__(
    ".globl _start\n"
    "_start: xor %ebp, %ebp\n"
    "  mov %rsp, %rdi\n"
    "  and $-16, %rsp\n"
    "  call program\n"
    "  hlt\n");

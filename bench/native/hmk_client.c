/*
 * The client of the C rows: calls through the client half of hmk's dispatcher, with no interpreter in the loop.
 *
 * Python attaches, binds and shares buffers (corekernel/attachment.py), and hands over the address of the link of a
 * bound slot. A loop ends when its time is up, its room for samples is used, or a call did not succeed; then `status`
 * says why (HMK_E_UNBOUND: Python binds again and goes on), and that call is not among the samples.
 *
 * Invariant: a link is used by one thread at a time, and outlives the loop; the calls are not interruptible.
 */
#include <errno.h>
#include <sys/prctl.h>

#include "hmk.h"

#define SLACK_NS 1000000

struct bench_call {
  uintptr_t link; /* of struct hmk_link */
  uint32_t operation; /* of the interface bench_echo */
  uint32_t registers; /* 0, or 1: `argument` is passed */
  uint64_t argument;
  const void *in;
  void *out; /* room for `length` bytes */
  uint32_t length;
  int64_t status; /* out: of the last call */
};

/* Whoever hands over a link must have been built from the same ABI. */
static size_t bench_link_bytes(void) { return sizeof(struct hmk_link); }

static struct hmk_message message_of(const struct bench_call *call) {
  struct hmk_message message = {.operation = (uint16_t)call->operation,
                                .registers = (uint8_t)call->registers,
                                .returns = 1,
                                .in = call->in,
                                .in_length = call->length,
                                .out = call->out,
                                .out_capacity = call->length};
  message.args[0] = call->argument;
  return message;
}

/* Call without a pause. The clock is read once per call, as in raw_measure(). Returns the samples taken. */
static size_t bench_calls(struct bench_call *call, uint64_t budget_ns, uint64_t *samples, size_t capacity) {
  struct hmk_link *link = (struct hmk_link *)call->link;
  struct hmk_message message = message_of(call);
  uint64_t before = now_ns(), end = before + budget_ns;
  size_t n = 0;
  call->status = HMK_OK;
  while (n < capacity && before < end) {
    call->status = hmk_call(link, &message);
    if (call->status != HMK_OK) break;
    uint64_t after = now_ns();
    samples[n++] = after - before;
    before = after;
  }
  return n;
}

/* A time that has passed is not slept for: arming the clock costs more than the call. */
static void sleep_until(uint64_t ns) {
  if (now_ns() >= ns) return;
  struct timespec at = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) continue;
}

/*
 * Call at `first_ns` (CLOCK_MONOTONIC) and every `period_ns` from there until `end_ns`. Whoever falls behind calls
 * at once, and keeps its timetable: a service that is too slow shows in the number of samples. Timers may be late by
 * a millisecond, so that one interrupt wakes many threads: a thousand timers each with an interrupt of its own would
 * measure the timers.
 */
static size_t bench_paced(struct bench_call *call, uint64_t first_ns, uint64_t period_ns, uint64_t end_ns,
                          uint64_t *samples, size_t capacity) {
  struct hmk_link *link = (struct hmk_link *)call->link;
  struct hmk_message message = message_of(call);
  size_t n = 0;
  prctl(PR_SET_TIMERSLACK, SLACK_NS);
  call->status = HMK_OK;
  for (uint64_t at = first_ns; n < capacity && at < end_ns && now_ns() < end_ns; at += period_ns) {
    sleep_until(at);
    uint64_t before = now_ns();
    call->status = hmk_call(link, &message);
    if (call->status != HMK_OK) break;
    samples[n++] = now_ns() - before;
  }
  return n;
}

/* Calls from a signal handler that interrupts calls of the same thread, at every point a timer can reach.
 *
 * usage: reentrant FRAMES_FD TICK_KHZ CPUS SIGNALS
 * The main program calls on slot 0. The handler finds that link `busy`, as often as not, and calls on slot 1; then it sets
 * the timer again, for a random time. Both slots are bound to carriers of the C echo service. On standard output: how
 * many calls reached the service, which the test compares with what the service counted.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client_side.h"

#define ABANDONED 4

static struct hmk_wait_policy policy, blocking;
static struct hmk_link first, second;
static timer_t timer;
static uint64_t issued_by_handler, found_busy, wanted, handler_seed = 362436069;
static atomic_ulong served_by_handler;

static void set_timer(void) {
  struct itimerspec when = {.it_value.tv_nsec = 10000 + (long)(draw(&handler_seed) % 150000)};
  timer_settime(timer, 0, &when, NULL);
}

static void on_alarm(int number) {
  static uint8_t in[HMK_INLINE], out[HMK_INLINE];
  (void)number;
  if (!hmk_link_ready(&first) && first.busy != ABANDONED) { /* an abandoned one may become ready at any moment */
    struct hmk_message message = {.operation = OP_NULL};
    CHECK(hmk_call(&first, &message) == HMK_E_BUSY);
    found_busy++;
  }
  second.policy = draw(&handler_seed) & 1 ? &policy : &blocking;
  struct hmk_message message = echo_message(in, out, &handler_seed);
  issued_by_handler++;
  CHECK(hmk_call(&second, &message) == HMK_OK);
  CHECK(echoed(&second, &message));
  if (atomic_fetch_add(&served_by_handler, 1) + 1 < wanted) set_timer();
}

/* The main program's calls: some sleep long enough to be interrupted, and then go on or are given up. */
struct tally {
  uint64_t issued, replied, resumed, cancelled;
};

static void one_call(uint64_t *seed, struct tally *tally) {
  static uint8_t in[HMK_INLINE], out[HMK_INLINE];
  int works = draw(seed) % 8 == 0;
  struct hmk_message message = echo_message(in, out, seed);
  if (works) message = (struct hmk_message){.operation = OP_WORK, .registers = 1, .args = {200000}};
  message.interruptible = draw(seed) & 1;
  first.policy = draw(seed) & 1 ? &policy : &blocking;
  tally->issued++;
  int64_t status = hmk_call(&first, &message);
  while (status == HMK_E_INTERRUPTED && draw(seed) % 4) {
    tally->resumed++;
    status = hmk_resume(&first, &message);
  }
  if (status == HMK_E_INTERRUPTED) {
    CHECK(hmk_cancel(&first) == HMK_E_CANCELLED);
    tally->cancelled++;
    await_ready(&first);
    return;
  }
  CHECK(status == HMK_OK);
  CHECK(works || echoed(&first, &message));
  tally->replied++;
}

int main(int argc, char **argv) {
  CHECK(argc == 5);
  struct hmk_slot *slots = map_frames((int)number(argv[1]));
  struct tally tally = {0};
  uint64_t seed = 521288629;
  wanted = number(argv[4]);
  hybrid_policy(&policy, number(argv[2]), (uint32_t)number(argv[3]));
  blocking.tick_khz = policy.tick_khz;
  blocking.cpus = policy.cpus;
  first.slot = &slots[0];
  second.slot = &slots[1];
  first.policy = second.policy = &policy;
  struct sigaction action = {.sa_handler = on_alarm};
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  set_timer();
  while (atomic_load(&served_by_handler) < wanted) one_call(&seed, &tally);
  CHECK(tally.issued == tally.replied + tally.cancelled);
  printf(
      "{\"issued\": %lu, \"handler\": %lu, \"busy\": %lu, \"resumed\": %lu, \"cancelled\": %lu, \"replied\": %lu}\n",
      tally.issued + issued_by_handler, issued_by_handler, found_busy, tally.resumed, tally.cancelled, tally.replied);
  return 0;
}

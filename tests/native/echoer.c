/* A well-behaved client: echoes on every slot it was given, in turn, until its standard input ends.
 *
 * usage: echoer FRAMES_FD TICK_KHZ CPUS SLOTS
 * Prints a line after the first round, when the test may go on, and the number of right replies at the end.
 */
#include <poll.h>
#include <stdio.h>

#include "client_side.h"

static struct hmk_wait_policy policy;
static struct hmk_link links[HMK_MAX_SLOTS];
static uint8_t in[HMK_INLINE], out[HMK_INLINE];

static int told_to_stop(void) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  return poll(&input, 1, 0) > 0;
}

int main(int argc, char **argv) {
  CHECK(argc == 5);
  struct hmk_slot *slots = map_frames((int)number(argv[1]));
  uint32_t count = (uint32_t)number(argv[4]);
  uint64_t seed = 2463534242, replies = 0;
  hybrid_policy(&policy, number(argv[2]), (uint32_t)number(argv[3]));
  for (uint32_t i = 0; i < count; i++) links[i] = (struct hmk_link){.slot = &slots[i], .policy = &policy};
  do {
    for (uint32_t i = 0; i < 16 * count; i++, replies++) {
      struct hmk_link *link = &links[i % count];
      struct hmk_message message = echo_message(in, out, &seed);
      link->deadline = hmk_ticks() + 10000 * policy.tick_khz; /* a lost reply is a failure, not a hang */
      CHECK(hmk_call(link, &message) == HMK_OK);
      CHECK(echoed(link, &message));
    }
    if (replies == 16 * count) {
      puts("echoing");
      fflush(stdout);
    }
  } while (!told_to_stop());
  printf("%lu\n", replies);
  return 0;
}

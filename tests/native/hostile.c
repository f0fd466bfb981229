/* A client that holds a frames object and means harm.
 *
 * usage: hostile scribble FRAMES_FD SLOTS SEED    write over every slot, for ever
 *        hostile requeue FRAMES_FD SLOTS          move whoever sleeps on a state word to a word of our own
 * Both print a line now and then, so that the test can tell how far they are, and end only by being killed.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client_side.h"

#define FUTEX_REQUEUE 3

static uint64_t seed;

/* A request that the service's own checks almost let pass, or do: the next sequence, anything else at random. */
static void forge(struct hmk_slot *slot) {
  struct hmk_leg *leg = &slot->leg[0];
  uint64_t random = draw(&seed);
  uint32_t sequence = HMK_SEQUENCE(hmk_load(&leg->state)) + (random % 8 != 0);
  uint16_t operation = (uint16_t)(random >> 8) % 8;
  HMK_SET(leg->operation, operation == OP_WORK ? OP_ECHO : operation);
  HMK_SET(leg->registers, (uint8_t)((random >> 16) % 12));
  HMK_SET(leg->flags, (uint8_t)(random >> 24));
  HMK_SET(leg->length, (uint32_t)(random >> 32) % (2 * HMK_INLINE));
  HMK_SET(leg->depth, (uint8_t)(random >> 40) % 12);
  hmk_exchange(&leg->state, HMK_STATE(sequence, HMK_PHASE_REQUEST));
  hmk_wake(&leg->state);
}

/* Random bytes in any word of a slot. One value is left out: WORK, which by its definition runs for as long as its caller
 * asks, and here would ask for a random number of years. */
static void scribble(struct hmk_slot *slot) {
  uint64_t *words = (uint64_t *)slot;
  size_t count = draw(&seed) & 1 ? 64 : sizeof *slot / sizeof *words;
  size_t at = draw(&seed) % count;
  uint64_t value = draw(&seed);
  if (at == offsetof(struct hmk_leg, operation) / 8 && (uint16_t)(value >> 32) == OP_WORK) value = 0;
  hmk_store64(&words[at], value);
  if (draw(&seed) % 16 == 0) hmk_wake(&slot->leg[draw(&seed) & 1].state);
}

static void scribble_for_ever(struct hmk_slot *slots, uint32_t count) {
  for (;;) {
    for (int i = 0; i < 1 << 15; i++) {
      struct hmk_slot *slot = &slots[draw(&seed) % count];
      if (draw(&seed) % 8)
        scribble(slot);
      else
        forge(slot);
    }
    write(1, ".", 1);
  }
}

static void requeue_for_ever(struct hmk_slot *slots, uint32_t count) {
  static uint32_t own;
  uint32_t taken = 0;
  time_t give_up = time(NULL) + 10;
  while (taken < count) {
    CHECK(time(NULL) < give_up);
    for (uint32_t i = 0; i < count; i++) {
      long moved = host6(HMK_SYS_FUTEX, (long)&slots[i].leg[0].state, FUTEX_REQUEUE, 0, 1, (long)&own, 0);
      CHECK(moved >= 0);
      taken += (uint32_t)moved;
    }
  }
  write(1, ".", 1);
  for (;;) pause();
}

int main(int argc, char **argv) {
  CHECK(argc >= 4);
  struct hmk_slot *slots = map_frames((int)number(argv[2]));
  uint32_t count = (uint32_t)number(argv[3]);
  if (!strcmp(argv[1], "requeue")) requeue_for_ever(slots, count);
  CHECK(argc == 5);
  seed = number(argv[4]);
  scribble_for_ever(slots, count);
}

/* Conditions, the end of a service's frames, mappings, and time: what needs neither half of a call. */
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "carrier.h"

/* The caller's wait word, to be read before the condition is tested (WAIT, see client.c). */
uint32_t hmk_sequence(struct hmk_slot *slot) { return hmk_load(&slot->leg[0].wait_word) & ~1u; }

/* Tell the caller of a slot that the condition it waits for may hold. */
void hmk_notify(struct hmk_slot *slot) {
  uint32_t *word = &slot->leg[0].wait_word;
  /* Pairs with hmk_wait_word(). Bit 0 is cleared with the count: whoever sleeps again sets it again. */
  uint32_t old = hmk_load(word);
  while (!hmk_swap(word, &old, (old & ~1u) + 2)) continue;
  if (old & 1) hmk_wake(word);
}

/* End whatever goes on in a slot of a dead service. */
void hmk_frames_kill(struct hmk_slot *slots, uint32_t index) {
  uint32_t *word = &slots[index].leg[0].state;
  hmk_exchange(word, HMK_STATE(HMK_SEQUENCE(hmk_load(word)), HMK_PHASE_DIED));
  hmk_notify(&slots[index]);
  /* Whether or not the flags say that somebody sleeps: the dead may have cleared them and not come to the wake. */
  hmk_wake(word);
  hmk_wake(&slots[index].leg[0].wait_word);
}

/* Map a whole shared object; NULL with errno set when the host refuses. */
char *hmk_map(int fd, uint64_t size, int writable) {
  void *at = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? NULL : at;
}

void hmk_unmap(char *at, uint64_t size) { munmap(at, size); }

uint64_t hmk_now(void) { return hmk_ticks(); }

static uint64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Time stamp counter frequency in kHz, measured over 4 ms. */
uint64_t hmk_measure_tick_khz(void) {
  uint64_t ns = monotonic_ns(), ticks = hmk_ticks(), end;
  do {
    end = monotonic_ns();
  } while (end - ns < 4000000);
  return (hmk_ticks() - ticks) * 1000000 / (end - ns);
}

/* variant: 0 hybrid, 1 spinning, 2 blocking only. */
void hmk_policy_defaults(struct hmk_wait_policy *policy, uint64_t tick_khz, uint32_t cpus, int variant) {
  uint64_t microsecond = tick_khz / 1000 + 1;
  memset(policy, 0, sizeof *policy);
  policy->tick_khz = tick_khz;
  policy->cpus = cpus > HMK_MAX_CPUS ? HMK_MAX_CPUS : cpus;
  policy->hog = 1000 * microsecond;
  if (variant == 0) {
    policy->spin = cpus > 1 ? 5 * microsecond : 0;
    policy->yield = 100 * microsecond;
  }
  if (variant == 1) {
    policy->spin = 50 * microsecond;
    policy->spin_same = 1;
  }
}

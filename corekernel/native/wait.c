/* The wait policy: spin, yield, sleep (Microkernel Goes General, OSDI '24, section 4.1: synchronous RPC without a scheduling decision).
 *
 * Waiting for a reply costs what the peer's position allows:
 *   1. the peer last ran on another CPU, and did not sleep: spin for `spin` ticks (a reply crosses in two cache-line
 *      transfers, a wake-up in no such time);
 *   2. yield for up to `yield` ticks: on the same CPU this *is* the switch to the peer, and costs less than a
 *      futex wake;
 *   3. sleep on the state word, HMK_SLEEP set, so that whoever moves the phase wakes us.
 * A yield that does not come back within `hog` ticks lost its CPU to somebody else's work: yielding is then
 * suspended on that CPU, for longer each time. A futex wake, unlike a yield, pre-empts the hog.
 *
 * Freestanding: no libc, no thread-local storage, no globals.
 */
#include "hmk.h"

#define HOG_FIRST_US 1000
#define HOG_LONGEST_US 1000000
#define HOG_ROW_US 250000
#define GONE_AFTER 1024
#define NAP_MOST_MS 1000
#define VAIN_YIELDS 3
#define COURTESY_LEAST_US 5
#define COURTESY_MOST_US 200
#define ALONE_US 2
#define LOST_US 1000

struct timespec64 {
  int64_t seconds;
  int64_t nanoseconds;
};

/* Sleep while *word == value. Returns 0 or a negative errno; -ETIMEDOUT once the deadline has passed. */
long hmk_sleep(uint32_t *word, uint32_t value, uint64_t deadline, const struct hmk_wait_policy *policy) {
  struct timespec64 timeout;
  if (deadline == 0) return hmk_syscall(HMK_SYS_FUTEX, (long)word, 0, (long)value, 0);
  uint64_t now = hmk_ticks();
  if (now >= deadline) return -HMK_ETIMEDOUT;
  uint64_t microseconds = (deadline - now) / (policy->tick_khz / 1000 + 1) + 1;
  timeout.seconds = (int64_t)(microseconds / 1000000);
  timeout.nanoseconds = (int64_t)(microseconds % 1000000) * 1000;
  return hmk_syscall(HMK_SYS_FUTEX, (long)word, 0, (long)value, (long)&timeout);
}

static int ended(struct hmk_wait *wait) {
  wait->state = hmk_load(wait->word);
  return !(wait->phases & HMK_BIT(HMK_PHASE(wait->state)));
}

static int commanded(const struct hmk_wait *wait) { return wait->command && hmk_load(wait->command); }

static int spin(struct hmk_wait *wait, uint64_t until) {
  do {
    for (int i = 0; i < 16; i++) {
      if (ended(wait)) return 1;
      hmk_pause();
    }
  } while (hmk_ticks() < until && !commanded(wait));
  return ended(wait);
}

/* A slow yield on this CPU: suspend yielding here, four times longer each time in a row. Long after the last one it is
 * no row: a virtual machine loses its CPU for as long some thirty times a second, and there is no hog at all. */
static void found_hog(struct hmk_wait_policy *policy, uint32_t cpu, uint64_t now) {
  uint64_t tick_us = policy->tick_khz / 1000 + 1;
  uint64_t backoff = hmk_load64(&policy->hog_backoff[cpu]) * 4;
  if (backoff == 0 || now > hmk_load64(&policy->hog_until[cpu]) + HOG_ROW_US * tick_us)
    backoff = HOG_FIRST_US * tick_us;
  if (backoff > HOG_LONGEST_US * tick_us) backoff = HOG_LONGEST_US * tick_us;
  hmk_store64(&policy->hog_backoff[cpu], backoff);
  hmk_store64(&policy->hog_until[cpu], now + backoff);
  hmk_store64(&policy->quick[cpu], 0);
}

/* A hog lets some yields pass; only a long row of quick ones means that it has gone. */
static void found_quick(struct hmk_wait_policy *policy, uint32_t cpu) {
  if (!hmk_load64(&policy->hog_backoff[cpu])) return;
  hmk_count64(&policy->quick[cpu], 1);
  if (hmk_load64(&policy->quick[cpu]) >= GONE_AFTER) hmk_store64(&policy->hog_backoff[cpu], 0);
}

/* A peer on this CPU runs in our yield, or the host does not let it: one that slept is held back for having yielded
 * before. Then yields come back at once, and only sleeping lets it run. */
static int yield(struct hmk_wait *wait, uint32_t cpu, uint64_t now, int apart) {
  int vain = 0;
  struct hmk_wait_policy *policy = wait->policy;
  uint64_t until = now + policy->yield;
  if (cpu >= HMK_MAX_CPUS || now < hmk_load64(&policy->hog_until[cpu])) return 0;
  while (now < until && !commanded(wait)) {
    hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
    uint64_t after = hmk_ticks();
    int done = ended(wait);
    wait->manners->gave = after;
    if (after - now > policy->hog) {
      found_hog(policy, cpu, after);
      return done;
    }
    if (done) {
      found_quick(policy, cpu);
      return 1;
    }
    /* Somebody ran, and it was not our peer: of many on this CPU the host would pick it by chance. */
    if (!apart && (after - now >= ALONE_US * (policy->tick_khz / 1000 + 1) || ++vain == VAIN_YIELDS)) return 0;
    now = after;
  }
  return 0;
}

/* Whoever spins keeps its CPU, and of the pairs that share the CPUs one could keep both for a whole time slice while the
 * others, which yield, starve. So a spinner yields first: each time while somebody else wants the CPU, seldom while nobody
 * does, and not for a while when it was gone for a millisecond: that is no peer of ours, and takes what it gets. */
static void be_courteous(struct hmk_wait *wait, uint32_t cpu, uint64_t now) {
  struct hmk_wait_policy *policy = wait->policy;
  struct hmk_manners *manners = wait->manners;
  uint64_t tick_us = policy->tick_khz / 1000 + 1;
  if (now - manners->gave < manners->interval || cpu >= HMK_MAX_CPUS || now < hmk_load64(&policy->lost_until[cpu]))
    return;
  hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
  manners->gave = hmk_ticks();
  uint64_t took = manners->gave - now;
  if (took > LOST_US * tick_us) hmk_store64(&policy->lost_until[cpu], manners->gave + HOG_LONGEST_US * tick_us);
  if (took >= ALONE_US * tick_us)
    manners->interval = 0;
  else if (manners->interval < COURTESY_MOST_US * tick_us)
    manners->interval = manners->interval * 2 + COURTESY_LEAST_US * tick_us;
}

/* A signal that came just before we sleep would go unnoticed until we wake. Whoever wants to know of signals sleeps in
 * naps, each twice as long as the one before, and looks in between. When the sleep that begins now must end. */
static uint64_t sleep_until(uint64_t deadline, const uint64_t *nap) {
  uint64_t wake = nap ? hmk_ticks() + *nap : 0;
  return !wake || (deadline && deadline < wake) ? deadline : wake;
}

static enum hmk_wait_end overslept(uint64_t deadline, uint64_t *nap, const struct hmk_wait_policy *policy) {
  if (!nap || (deadline && hmk_ticks() >= deadline)) return HMK_WAIT_DEADLINE;
  *nap = *nap * 2 > policy->tick_khz * NAP_MOST_MS ? policy->tick_khz * NAP_MOST_MS : *nap * 2;
  return HMK_WAIT_SIGNAL;
}

/* Sleep with the flag set, so that the phase cannot move unnoticed; any return re-examines the word. */
static enum hmk_wait_end slumber(struct hmk_wait *wait) {
  uint64_t until = sleep_until(wait->deadline, wait->nap);
  long result = 0;
  while (!ended(wait)) {
    if (commanded(wait)) return HMK_WAIT_COMMAND;
    if (result == -HMK_EINTR) return HMK_WAIT_SIGNAL;
    if (result == -HMK_ETIMEDOUT) return overslept(wait->deadline, wait->nap, wait->policy);
    uint32_t state = wait->state;
    /* Pairs with hmk_exchange() of the party that moves the phase: it sees HMK_SLEEP, or we see its phase. */
    if (!(state & HMK_SLEEP) && !hmk_swap(wait->word, &state, state | HMK_SLEEP)) continue;
    result = hmk_sleep(wait->word, state | HMK_SLEEP, until, wait->policy);
  }
  return HMK_WAIT_DONE;
}

/* Wait until the phase of *word leaves wait->phases. */
enum hmk_wait_end hmk_wait_phase(struct hmk_wait *wait) {
  struct hmk_wait_policy *policy = wait->policy;
  uint32_t cpu;
  if (ended(wait)) {
    hmk_count64(&wait->waits[0], 1);
    return HMK_WAIT_DONE;
  }
  if (!wait->sleep_at_once) {
    uint64_t now = hmk_ticks_cpu(&cpu);
    int apart = wait->peer_cpu != cpu || policy->spin_same;
    int near = apart && !wait->peer_slept;
    if (policy->yield && near) be_courteous(wait, cpu, now);
    if (policy->spin && near && spin(wait, now + policy->spin)) {
      hmk_count64(&wait->waits[0], 1);
      return HMK_WAIT_DONE;
    }
    if (policy->yield && yield(wait, cpu, apart ? hmk_ticks() : now, apart)) {
      hmk_count64(&wait->waits[1], 1);
      return HMK_WAIT_DONE;
    }
  }
  hmk_count64(&wait->waits[2], 1);
  return slumber(wait);
}

/* Wait until the count in a wait word (all but bit 0) moves on from `sequence`, or the slot dies. */
enum hmk_wait_end hmk_wait_word(uint32_t *word, uint32_t sequence, uint64_t deadline, uint64_t *nap,
                                const struct hmk_wait_policy *policy, const uint32_t *state) {
  uint64_t until = sleep_until(deadline, nap);
  long result = 0;
  for (;;) {
    uint32_t seen = hmk_load(word);
    if ((seen | 1) != (sequence | 1) || HMK_PHASE(hmk_load(state)) == HMK_PHASE_DIED) return HMK_WAIT_DONE;
    if (result == -HMK_EINTR) return HMK_WAIT_SIGNAL;
    if (result == -HMK_ETIMEDOUT) return overslept(deadline, nap, policy);
    /* Pairs with the fetch-and-add of hmk_notify(): it sees bit 0, or we see its count. */
    if (!(seen & 1) && !hmk_swap(word, &seen, seen | 1)) continue;
    result = hmk_sleep(word, seen | 1, until, policy);
  }
}

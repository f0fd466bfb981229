/* The gate before the interpreter's lock.
 *
 * CPython's lock is no queue: each thread that waits for it wakes every switch interval to ask for it, and whoever asks
 * at the right moment has it. A hundred carriers at once would do nothing else, and two that are quick would starve the
 * others. So carriers line up here (a queue of Mellor-Crummey and Scott, each waiting on a word of its own, first come
 * first served). `inside` says who has the interpreter's lock, or is about to: the first in line claims it, asleep until
 * it is free, and so hardly ever waits for the lock itself. It leaves the line as soon as it has the lock: a handler that
 * lets go of that while it blocks holds nobody up for longer than LONG_HANDLER_MS.
 */
#include "carrier.h"

#define PATIENCE 3
#define PASSING_US 20
#define NOBODY 0
#define AWAITED 0x80000000u /* in `inside`: somebody sleeps until it changes */
#define LONG_HANDLER_MS 1

enum turn { TURN_WAITING = 0, TURN_COME = 1, TURN_ASLEEP = 2 };

static int claim(struct hmk_carrier *carrier, uint32_t *inside) {
  *inside = hmk_load(&carrier->pool->inside);
  return *inside == NOBODY && hmk_swap(&carrier->pool->inside, inside, carrier->cpu + 1);
}

/* Handlers are short: whoever waits for one that runs on another CPU spins for as long as for a reply, then sleeps. One
 * that blocks lets go of the interpreter's lock and does not tell: then that itself must be waited for. */
static void await_inside(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  uint64_t now = hmk_ticks(), awake = now + pool->policy->spin;
  uint64_t deadline = now + pool->policy->tick_khz * LONG_HANDLER_MS;
  uint32_t inside;
  while (!claim(carrier, &inside)) {
    if ((inside & ~AWAITED) != carrier->cpu + 1 && hmk_ticks() < awake) {
      hmk_pause();
      continue;
    }
    /* Pairs with the exchange of hmk_gate_outside(): it sees AWAITED, or we see what it has put there. */
    if (!(inside & AWAITED) && !hmk_swap(&pool->inside, &inside, inside | AWAITED)) continue;
    if (hmk_sleep(&pool->inside, inside | AWAITED, deadline, pool->policy) == -HMK_ETIMEDOUT) return;
  }
}

static int spin_for_turn(struct hmk_carrier *carrier) {
  uint64_t until = hmk_ticks() + carrier->pool->policy->spin;
  while (hmk_load(&carrier->turn) != TURN_COME && hmk_ticks() < until) hmk_pause();
  return hmk_load(&carrier->turn) == TURN_COME;
}

static void await_turn(struct hmk_carrier *carrier) {
  uint32_t turn = TURN_WAITING;
  if (spin_for_turn(carrier)) return;
  for (int i = 0; i < PATIENCE; i++) {
    hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
    if (hmk_load(&carrier->turn) == TURN_COME) return;
  }
  if (!hmk_swap(&carrier->turn, &turn, TURN_ASLEEP)) return;
  while (hmk_load(&carrier->turn) == TURN_ASLEEP) hmk_sleep(&carrier->turn, TURN_ASLEEP, 0, NULL);
}

static void line_up(struct hmk_carrier *carrier) {
  atomic_store_explicit(&carrier->behind, NULL, memory_order_relaxed);
  HMK_SET(carrier->turn, TURN_WAITING);
  struct hmk_carrier *before = atomic_exchange(&carrier->pool->last, carrier);
  if (!before) return;
  atomic_store_explicit(&before->behind, carrier, memory_order_release);
  await_turn(carrier);
}

int hmk_gate_taken(struct hmk_pool *pool) { return atomic_load_explicit(&pool->last, memory_order_relaxed) != NULL; }

/* Handing the lock to a sleeper each time would leave it idle while that one wakes: so whoever runs and finds it free
 * goes before those in line, until the first of them has waited for long enough. */
static int passes(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  uint64_t since = hmk_load64(&pool->first_since);
  uint32_t inside;
  if (since && hmk_ticks() >= since + PASSING_US * (pool->policy->tick_khz / 1000 + 1)) return 0;
  return claim(carrier, &inside);
}

/* Whether the caller stood in line, and must leave it with hmk_gate_leave() as soon as it has the lock. */
int hmk_gate_enter(struct hmk_carrier *carrier) {
  if (passes(carrier)) return 0;
  line_up(carrier);
  hmk_store64(&carrier->pool->first_since, hmk_ticks());
  await_inside(carrier);
  return 1;
}

/* The caller has the lock, by whatever way. */
void hmk_gate_inside(struct hmk_carrier *carrier) {
  uint32_t *word = &carrier->pool->inside, inside = hmk_load(word);
  while (!hmk_swap(word, &inside, (carrier->cpu + 1) | (inside & AWAITED)));
}

/* The caller is about to give the lock back; whether it must then wake who sleeps on `inside`. */
int hmk_gate_outside(struct hmk_carrier *carrier) {
  return (hmk_exchange(&carrier->pool->inside, NOBODY) & AWAITED) != 0;
}

void hmk_gate_leave(struct hmk_carrier *carrier) {
  hmk_store64(&carrier->pool->first_since, 0);
  struct hmk_carrier *next = atomic_load_explicit(&carrier->behind, memory_order_acquire), *self = carrier;
  if (!next && atomic_compare_exchange_strong(&carrier->pool->last, &self, NULL)) return;
  /* Somebody is between the two steps of entering. */
  while (!(next = atomic_load_explicit(&carrier->behind, memory_order_acquire)))
    hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
  if (hmk_exchange(&next->turn, TURN_COME) == TURN_ASLEEP) hmk_wake(&next->turn);
}

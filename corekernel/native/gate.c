/* The gate before the interpreter's lock.
 *
 * CPython's lock is no queue: each thread that waits for it wakes every switch interval to ask for it, and whoever asks
 * at the right moment has it. A hundred carriers at once would do nothing else, and two that are quick would starve the
 * others. So carriers line up here (a queue of Mellor-Crummey and Scott, each waiting on a word of its own, first come
 * first served), and only the first of them waits for the lock itself. The gate is left as soon as the lock is had: a
 * handler that lets go of it while it blocks holds nobody up.
 */
#include "carrier.h"

#define PATIENCE 3
#define PASSING_US 20
#define NOBODY 0

enum turn { TURN_WAITING = 0, TURN_COME = 1, TURN_ASLEEP = 2 };

/* Handlers are short: whoever waits for one that runs on another CPU spins for as long as for a reply. */
static void await_inside(struct hmk_pool *pool, uint32_t cpu) {
  uint64_t until = hmk_ticks() + pool->policy->spin;
  for (uint32_t inside = HMK_GET(pool->inside); inside != NOBODY && inside != cpu + 1 && hmk_ticks() < until;
       inside = HMK_GET(pool->inside))
    hmk_pause();
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
static int may_pass(struct hmk_pool *pool, uint64_t now) {
  uint64_t since = hmk_load64(&pool->first_since);
  return HMK_GET(pool->inside) == NOBODY &&
         (!since || now < since + PASSING_US * (pool->policy->tick_khz / 1000 + 1));
}

/* Whether the caller stood in line, and must leave it with hmk_gate_leave() as soon as it has the lock. */
int hmk_gate_enter(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  if (may_pass(pool, hmk_ticks())) return 0;
  line_up(carrier);
  hmk_store64(&pool->first_since, hmk_ticks());
  await_inside(pool, carrier->cpu);
  return 1;
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

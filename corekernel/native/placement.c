/* Where a carrier runs.
 *
 * The core decides the mode and publishes it in the pool's shared page; obeying it is the carrier's, since a client may
 * not move a thread of another user. An unpinned carrier finds its place by what it sees of its caller:
 *
 *   - a caller that calls again and again, and meets its carrier on one CPU, wants two: *promotion*;
 *   - a caller that calls seldom wants its carrier on its own CPU, where waking it costs a switch, and not an interrupt
 *     that wakes an idle CPU: the carrier *follows*;
 *   - callers that get into each other's way are a *crowd*: the carriers follow too.
 */
#include "carrier.h"

#include <unistd.h>

#define NO_CPU 0xffffffffu
#define PROMOTE_AFTER 64
#define SETTLED_AFTER 4096
#define COMPANY_US 1000
#define LONG_WAIT_US 50
#define CROWD_US 100000
#define LONG_HANDLER_US 20

static uint64_t ticks_of(const struct hmk_pool *pool, uint64_t microseconds) {
  return microseconds * (pool->policy->tick_khz / 1000 + 1);
}

void hmk_set_affinity(uint32_t cpu, uint32_t cpus) {
  uint64_t mask = cpu == NO_CPU ? (cpus >= 64 ? ~0ull : (1ull << cpus) - 1) : 1ull << cpu;
  hmk_syscall(HMK_SYS_SCHED_SETAFFINITY, 0, sizeof mask, (long)&mask, 0);
}

/* Promotion. Caller and carrier that meet on one CPU alternate there, though another may be idle: the host sees two
 * threads that are never both runnable for long. So a carrier that has met its caller PROMOTE_AFTER times in a row
 * moves away, serves as many calls there, and is then free again to be moved by the host. If it was right, the two stay
 * apart. If they meet again soon (that CPU was not idle after all), the next trial waits twice as long, up to a second,
 * so that carriers do not push each other around. */
static void begin_trial(struct hmk_carrier *carrier, uint64_t now) {
  struct hmk_pool *pool = carrier->pool;
  uint32_t cpu = carrier->cpu, target = HMK_GET(pool->shared->place_cpu);
  if (target == HMK_PLACE_NOWHERE || now < carrier->no_trial_until) return;
  if (target >= pool->policy->cpus || target == cpu) target = (cpu + 1) % pool->policy->cpus;
  if (target == cpu || now < hmk_load64(&pool->policy->hog_until[target])) return;
  carrier->before = now - carrier->met_at;
  carrier->met_at = now;
  carrier->trial = PROMOTE_AFTER;
  /* The caller runs when we leave this CPU, and calls again. Told where we are, it waits awake until we have arrived; asleep,
   * it would be woken from there, and the host might have it follow us. */
  HMK_SET(carrier->slot->leg[0].carrier_cpu, target);
  hmk_set_affinity(target, pool->policy->cpus);
}

static void end_trial(struct hmk_carrier *carrier, uint64_t now) {
  struct hmk_pool *pool = carrier->pool;
  uint64_t millisecond = pool->policy->tick_khz;
  carrier->trial_pause = carrier->trial_pause ? carrier->trial_pause * 2 : millisecond;
  if (carrier->trial_pause > 1024 * millisecond) carrier->trial_pause = 1024 * millisecond;
  carrier->no_trial_until = now + carrier->trial_pause;
  hmk_set_affinity(NO_CPU, pool->policy->cpus);
  if (now - carrier->met_at < carrier->before)
    atomic_fetch_add_explicit((_Atomic uint32_t *)&pool->shared->promoted, 1, memory_order_relaxed);
}

static void consider_promotion(struct hmk_carrier *carrier) {
  if (carrier->trial) {
    if (--carrier->trial == 0) end_trial(carrier, hmk_ticks());
    return;
  }
  if (carrier->caller_cpu != carrier->cpu) {
    carrier->together = 0;
    if (++carrier->apart == SETTLED_AFTER) carrier->trial_pause = carrier->no_trial_until = 0;
    return;
  }
  carrier->apart = 0;
  if (carrier->together++ == 0) carrier->met_at = hmk_ticks();
  if (carrier->together <= PROMOTE_AFTER) return;
  carrier->together = 0;
  begin_trial(carrier, hmk_ticks());
}

/* Two pairs of caller and carrier that are apart share the CPUs badly: one keeps both of them while the host lets it, and
 * the others, who never find their peers running, starve. A request of a busy caller that waited for long while another
 * carrier of the pool served calls says so. On its caller's CPU a pair needs one CPU only, and the host shares out the
 * rest. A caller can lie about the time: it moves its own carriers with that, and its neighbours' for a while. */
void hmk_look_for_crowd(struct hmk_carrier *carrier, uint64_t issued, uint64_t started) {
  struct hmk_pool *pool = carrier->pool;
  int company =
      HMK_GET(pool->served_by) != carrier && started - hmk_load64(&pool->served_at) < ticks_of(pool, COMPANY_US);
  if (company && carrier->pauses == 0 && started > issued + ticks_of(pool, LONG_WAIT_US))
    hmk_store64(&pool->crowded_until, started + ticks_of(pool, CROWD_US));
  HMK_SET(pool->served_by, carrier);
  hmk_store64(&pool->served_at, started);
}

/* In a crowd, long handlers in Python stay on one CPU, the process's own: they are served one after the other in any
 * case, and what the interpreter touches stays in one cache. */
static uint32_t cpu_to_follow_to(const struct hmk_carrier *carrier, int crowded) {
  const struct hmk_pool *pool = carrier->pool;
  int stays = crowded && pool->python && carrier->usual_duration > ticks_of(pool, LONG_HANDLER_US);
  return stays ? (uint32_t)getpid() % pool->policy->cpus : carrier->caller_cpu;
}

/* Whether it was for this to place the carrier. */
static int follow(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  int crowded = carrier->replied < hmk_load64(&pool->crowded_until);
  if (!crowded && carrier->pauses < HMK_LONG_PAUSES) {
    if (!carrier->follows) return 0;
    carrier->follows = 0;
    hmk_set_affinity(NO_CPU, pool->policy->cpus);
    return 1;
  }
  uint32_t target = cpu_to_follow_to(carrier, crowded);
  if (carrier->follows && carrier->cpu == target) return 1;
  carrier->follows = 1;
  carrier->together = carrier->trial = 0;
  hmk_set_affinity(target, pool->policy->cpus);
  return 1;
}

static void obey_order(struct hmk_carrier *carrier, uint32_t mode, uint32_t epoch) {
  struct hmk_pool *pool = carrier->pool;
  uint32_t target = HMK_GET(pool->shared->place_cpu);
  carrier->epoch = epoch;
  carrier->together = carrier->trial = carrier->follows = 0;
  hmk_set_affinity(mode == HMK_PLACE_PINNED && target < pool->policy->cpus ? target : NO_CPU, pool->policy->cpus);
}

/* After each call. */
void hmk_find_place(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  uint32_t epoch = hmk_load(&pool->shared->place_epoch), mode = HMK_GET(pool->shared->placement);
  if (pool->polled) return;
  if (epoch != carrier->epoch) {
    obey_order(carrier, mode, epoch);
    return;
  }
  if (carrier->caller_cpu >= pool->policy->cpus) return;
  if (mode == HMK_PLACE_SAME && carrier->caller_cpu != carrier->cpu)
    hmk_set_affinity(carrier->caller_cpu, pool->policy->cpus);
  if (mode == HMK_PLACE_FREE && !follow(carrier)) consider_promotion(carrier);
}

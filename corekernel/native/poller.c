/* The poller of isolation class IC1: one thread, on a CPU of its own, serves all bound slots of a service, on its own
 * stack; a call then costs cache-line transfers and no host scheduling at all.
 *
 * Where to look. A client sets the bit of a slot in its ready bitmap (abi.cdef.h) once a request stands in the slot, and
 * the bit stands for as long as the slot is *warm*. Each round the poller looks at those bound slots whose bit is set and
 * serves at most one call on each; so whoever calls again soon touches no line but its slot's, as if there were no
 * bitmap, and whoever does not costs nobody anything. Every SWEEP rounds the poller takes away the bits of slots that
 * had no request since the last sweep, and then looks at these once more: a request either came before that look, or
 * its client finds the bit gone and sets it again (note_ready() in client.c). A call that is given up needs no bit: its
 * request had one, and is answered or dropped when the poller comes to it.
 *
 * A bitmap is its client's to spoil, and that harms only its own calls. Which slots are bound is private (`bound`), so the
 * most that bits can cost is a look at each slot that this client has bound, as many as it has stacks. Bits that are
 * withheld or cleared delay its own calls; they cannot keep a carrier either, as the control thread does not ask the
 * bitmap:
 *
 * Orders. The control thread writes a carrier's `command`, or `look`, and then bumps the pool's `orders`. The poller, which
 * sees that once a round, visits all carriers: it takes up the new ones, parks those told to, looks at those to be looked
 * at. `look` is set with each binding (a request may come before the carrier is taken up) and when a carrier that is to
 * be taken back has something in its slot. Watches are the poller's alone; one holds the bound slots of one word of one
 * bitmap, and none stays without any, so that no bitmap is read once the last carrier bound under it has parked.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

#include "carrier.h"

#define NO_KEY 0xffffffffu
#define SWEEP 256

static uint64_t bit_of(const struct hmk_carrier *carrier) { return 1ull << carrier->place; }

/* ---- looking ---- */

/* Whether there was anything to do. The load is sequentially consistent: see cool_down(). */
static int look_at(struct hmk_carrier *carrier) {
  return hmk_answer(carrier, atomic_load((const _Atomic uint32_t *)&carrier->slot->leg[0].state));
}

/* Look at some slots of a watch; those where there was anything to do. */
static uint64_t look_at_each(struct hmk_watch *watch, uint64_t slots) {
  uint64_t found = 0;
  for (; slots; slots &= slots - 1)
    if (look_at(watch->carriers[__builtin_ctzll(slots)])) found |= slots & -slots;
  return found;
}

/* Take away bits, then look: pairs with note_ready() in client.c, which moves the state, then looks for its bit. */
static void cool_down(struct hmk_watch *watch, uint64_t cold) {
  atomic_fetch_and((_Atomic uint64_t *)watch->ready, ~cold);
  watch->warm |= look_at_each(watch, cold & watch->bound);
}

static void go_round(struct hmk_pool *pool, int sweep) {
  for (uint32_t i = 0; i < pool->watching; i++) {
    struct hmk_watch *watch = &pool->watches[i];
    uint64_t ready = hmk_load64(watch->ready);
    watch->warm |= look_at_each(watch, ready & watch->bound);
    if (!sweep) continue;
    uint64_t cold = ready & ~watch->warm;
    watch->warm = 0;
    if (cold) cool_down(watch, cold);
  }
}

/* ---- obeying ---- */

static struct hmk_watch *watch_of(struct hmk_pool *pool, const struct hmk_carrier *carrier) {
  for (uint32_t i = 0; i < pool->watching; i++)
    if (pool->watches[i].ready == carrier->ready) return &pool->watches[i];
  return NULL;
}

static void take_up(struct hmk_pool *pool, struct hmk_carrier *carrier) {
  struct hmk_watch *watch = watch_of(pool, carrier);
  if (!watch) {
    watch = &pool->watches[pool->watching++];
    *watch = (struct hmk_watch){.ready = carrier->ready};
  }
  watch->bound |= bit_of(carrier);
  watch->carriers[carrier->place] = carrier;
  carrier->watched = 1;
}

/* A carrier told to park before it was taken up is in no watch. */
static void let_go(struct hmk_pool *pool, struct hmk_carrier *carrier) {
  if (carrier->watched) {
    struct hmk_watch *watch = watch_of(pool, carrier);
    watch->bound &= ~bit_of(carrier);
    if (!watch->bound) *watch = pool->watches[--pool->watching];
    carrier->watched = 0;
  }
  hmk_park(carrier);
}

static void obey(struct hmk_carrier *self) {
  struct hmk_pool *pool = self->pool;
  uint32_t carriers = hmk_load(&pool->shared->carriers);
  for (uint32_t i = 0; i < carriers; i++) {
    struct hmk_carrier *carrier = &pool->carriers[i];
    uint32_t command = hmk_load(&carrier->command);
    if (command == COMMAND_PARK) let_go(pool, carrier);
    if (command != COMMAND_RUN) continue;
    if (!carrier->watched) {
      carrier->python_state = self->python_state;
      HMK_SET(carrier->record->tid, self->record->tid);
      take_up(pool, carrier);
    }
    if (hmk_load(&carrier->look) && hmk_exchange(&carrier->look, 0)) look_at(carrier);
  }
}

void *hmk_poller_main(void *argument) {
  struct hmk_pool *pool = argument;
  struct hmk_carrier_record record = {.tid = (uint32_t)syscall(SYS_gettid)}; /* of all its carriers: whom to kick */
  struct hmk_carrier self = {.pool = pool, .record = &record, .context = {.carrier = NO_KEY}};
  uint32_t obeyed = 0;
  if (pool->python) hmk_python_begin(&self);
  hmk_set_affinity(pool->poll_cpu, pool->policy->cpus);
  for (uint32_t round = 1;; round++) {
    uint32_t orders = hmk_load(&pool->orders);
    if (orders != obeyed) obey(&self);
    obeyed = orders;
    go_round(pool, round % SWEEP == 0);
    if (pool->leave_at && hmk_ticks() > pool->leave_at) hmk_poller_leave(&self);
    hmk_pause();
  }
  return NULL;
}

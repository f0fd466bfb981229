/* Carriers: the threads that serve calls.
 *
 * A carrier is a thread of the service whose machine stack is a region of the service's stack-pool object (lowest page
 * a guard). It is either parked in the pool or bound to one slot of one client, where it waits for requests.
 *
 * `command` is how the control thread of the service reaches a carrier: RUN, PARK (leave the slot) or LEAVE (end).
 * It is private memory: a client that scribbles over the slot, or requeues the futex a carrier sleeps on, cannot keep
 * the carrier, because every command is followed by a signal to that thread until it is obeyed (pool.c).
 */
#define _GNU_SOURCE
#include "carrier.h"

#include <sys/syscall.h>
#include <unistd.h>

#define CALLS_IN_A_ROW 32
#define QUIET_PHASES (HMK_READY_PHASES | HMK_BIT(HMK_PHASE_DIED))
#define DEFER_MS 2

static int higher_class_runs(struct hmk_pool *pool, uint32_t priority) {
  if (priority < HMK_PRIORITY_HIGH && hmk_load(&pool->high)) return 1;
  if (priority >= HMK_PRIORITY_NORMAL) return 0;
  uint32_t carriers = HMK_GET(pool->shared->carriers);
  for (uint32_t i = 0; i < carriers; i++)
    if (HMK_GET(pool->records[i].state) == HMK_CARRIER_RUNNING &&
        HMK_GET(pool->carriers[i].context.priority) > priority)
      return 1;
  return 0;
}

/* A call's class orders the service's work: it lets calls of a higher class finish first, for one slice at most, so
 * that a hung handler of a high class cannot stop the others. Only calls of the low class look further than one word.
 * Host priorities are left alone: unequal ones would break yielding to the peer. */
static void defer(struct hmk_pool *pool, uint32_t priority) {
  uint64_t until = hmk_ticks() + pool->policy->tick_khz * DEFER_MS;
  while (higher_class_runs(pool, priority) && hmk_ticks() < until) hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
}

/* Waiting for the next request is not waiting for a reply. Each request says when it was issued, so a carrier knows how
 * long its caller took after the last reply: after two pauses too long to be waited out awake it sleeps at once, until
 * one is short again. */
static void note_pause(struct hmk_carrier *carrier, uint64_t issued) {
  struct hmk_wait_policy *policy = carrier->pool->policy;
  uint64_t pause = issued > carrier->replied ? issued - carrier->replied : 0;
  carrier->pauses = pause > policy->spin + policy->yield ? carrier->pauses + 1 : 0;
}

/* Serve the request in the slot and publish the reply; whether the caller must be woken. For a Python service the
 * interpreter's lock is held: the wake-up, which may give the CPU away, is left for after its release. */
static int serve_request(struct hmk_carrier *carrier, uint32_t state) {
  struct hmk_pool *pool = carrier->pool;
  struct hmk_carrier_record *record = carrier->record;
  struct hmk_leg *leg = &carrier->slot->leg[0];
  struct hmk_context *context = &carrier->context;
  struct hmk_bulk *bulk = atomic_load_explicit(&carrier->bulk, memory_order_acquire);
  uint32_t sequence = HMK_SEQUENCE(state);
  uint64_t started = hmk_ticks_cpu(&carrier->cpu);
  carrier->caller_cpu = HMK_GET(leg->caller_cpu);
  HMK_SET(leg->carrier_cpu, carrier->cpu);
  hmk_store64(&record->started, started);
  HMK_SET(record->state, HMK_CARRIER_RUNNING);
  context->bulk = bulk ? bulk->at : NULL;
  context->bulk_size = bulk ? bulk->size : 0;
  int64_t status = hmk_admit(context, leg);
  note_pause(carrier, context->issued);
  hmk_look_for_crowd(carrier, context->issued, started);
  if (context->priority > carrier->max_priority) HMK_SET(context->priority, carrier->max_priority);
  if (sequence != ((carrier->sequence + 1) & 0xffffff)) status = HMK_E_BAD_FRAME;
  carrier->sequence = sequence;
  if (status == HMK_OK)
    status = hmk_run(pool, context);
  else
    hmk_count64(&record->forged, 1);
  uint64_t ended = carrier->replied = hmk_ticks();
  hmk_count64(&record->calls, 1);
  carrier->usual_duration += ((int64_t)(ended - started) - (int64_t)carrier->usual_duration) / 8;
  hmk_count64(&record->handler, ended - started);
  hmk_count64(&record->handler_total, ended - started);
  hmk_store64(&record->last_used, ended);
  hmk_store64(&record->started, 0);
  HMK_SET(record->state, HMK_CARRIER_BOUND);
  hmk_store64(&record->cpu, carrier->cpu);
  HMK_SET(leg->charged, record->handler);
  if (HMK_GET(pool->shared->observe)) hmk_observe(pool, context, carrier->cpu, started, ended, status);
  hmk_publish(context, leg, status);
  /* A caller that cancelled meanwhile finds the slot usable again; death is final. */
  uint32_t old = hmk_load(&leg->state);
  do {
    if (HMK_PHASE(old) == HMK_PHASE_DIED) return 0;
  } while (!hmk_swap(&leg->state, &old, HMK_STATE(sequence, HMK_PHASE_REPLY)));
  return (old & HMK_SLEEP) != 0;
}

/* A caller on another CPU that calls again at once is answered without giving up the interpreter's lock in between, if
 * nobody else wants it; a thread that waits for it in Python has it at the next handler. */
static int next_call_soon(struct hmk_carrier *carrier, uint32_t *state) {
  struct hmk_pool *pool = carrier->pool;
  struct hmk_leg *leg = &carrier->slot->leg[0];
  if (carrier->cpu == carrier->caller_cpu) return 0;
  for (uint64_t until = hmk_ticks() + pool->policy->spin; hmk_ticks() < until;) {
    for (int i = 0; i < 4; i++) {
      *state = hmk_load(&leg->state);
      if (HMK_PHASE(*state) == HMK_PHASE_REQUEST)
        return HMK_GET(leg->priority) == HMK_PRIORITY_NORMAL && hmk_load(&carrier->command) == COMMAND_RUN;
      hmk_pause();
    }
    if (hmk_gate_taken(pool) || hmk_load(&pool->high) || hmk_load(&carrier->command) != COMMAND_RUN) return 0;
  }
  return 0;
}

static int serve_python(struct hmk_carrier *carrier, uint32_t state, int high) {
  hmk_python_enter(carrier, !high);
  int asleep = serve_request(carrier, state);
  for (int more = 0; more < CALLS_IN_A_ROW && !asleep && !high && next_call_soon(carrier, &state); more++) {
    hmk_find_place(carrier);
    hmk_count64(&carrier->record->waits[0], 1);
    asleep = serve_request(carrier, state);
  }
  hmk_python_leave(carrier);
  return asleep;
}

/* Give up the interpreter's lock, which serving a call took. */
void hmk_poller_leave(struct hmk_carrier *carrier) {
  hmk_python_leave(carrier);
  carrier->pool->leave_at = 0;
}

/* A poller keeps the lock for its next call, whoever's that is, if it comes soon; otherwise it gives it up itself. */
static int serve_polled(struct hmk_carrier *carrier, uint32_t state) {
  struct hmk_pool *pool = carrier->pool;
  if (!pool->leave_at) {
    hmk_python_enter(carrier, 0);
    pool->in_a_row = 0;
  }
  int asleep = serve_request(carrier, state);
  pool->leave_at = carrier->replied + pool->policy->spin;
  if (++pool->in_a_row == CALLS_IN_A_ROW) hmk_poller_leave(carrier);
  return asleep;
}

static int serve(struct hmk_carrier *carrier, uint32_t state, int high) {
  struct hmk_pool *pool = carrier->pool;
  if (!pool->python) return serve_request(carrier, state);
  return pool->polled ? serve_polled(carrier, state) : serve_python(carrier, state, high);
}

static void serve_call(struct hmk_carrier *carrier, uint32_t state) {
  struct hmk_pool *pool = carrier->pool;
  struct hmk_leg *leg = &carrier->slot->leg[0];
  uint32_t priority = HMK_GET(leg->priority);
  if (priority > carrier->max_priority) priority = carrier->max_priority;
  int high = priority >= HMK_PRIORITY_HIGH;
  if (high)
    atomic_fetch_add((_Atomic uint32_t *)&pool->high, 1);
  else if (priority < HMK_PRIORITY_NORMAL || hmk_load(&pool->high))
    defer(pool, priority);
  int asleep = serve(carrier, state, high);
  if (asleep) hmk_wake(&leg->state);
  if (high) atomic_fetch_sub((_Atomic uint32_t *)&pool->high, 1);
  hmk_find_place(carrier);
}

/* The caller gave its request up before anybody had looked, or wrote a phase that is not a caller's to write: nothing
 * to run, but the slot must become usable again, and its carrier one that can be taken back. */
static void drop_call(struct hmk_carrier *carrier, uint32_t state) {
  carrier->sequence = HMK_SEQUENCE(state);
  if (HMK_PHASE(state) != HMK_PHASE_CANCELLED) hmk_count64(&carrier->record->forged, 1);
  hmk_swap(&carrier->slot->leg[0].state, &state, HMK_STATE(HMK_SEQUENCE(state), HMK_PHASE_REPLY));
}

/* Serve what stands in the slot, unless a command came before it: then it is for the slot's next carrier. Whether there
 * was anything to do. */
int hmk_answer(struct hmk_carrier *carrier, uint32_t state) {
  if (hmk_load(&carrier->command) != COMMAND_RUN) return 0;
  if (HMK_BIT(HMK_PHASE(state)) & QUIET_PHASES) return 0;
  if (HMK_PHASE(state) == HMK_PHASE_REQUEST)
    serve_call(carrier, state);
  else
    drop_call(carrier, state);
  return 1;
}

static void serve_slot(struct hmk_carrier *carrier) {
  struct hmk_leg *leg = &carrier->slot->leg[0];
  struct hmk_wait wait = {.word = &leg->state,
                          .phases = QUIET_PHASES,
                          .policy = carrier->pool->policy,
                          .command = &carrier->command,
                          .waits = carrier->record->waits,
                          .manners = &carrier->manners};
  while (hmk_load(&carrier->command) == COMMAND_RUN) {
    wait.peer_cpu = HMK_GET(leg->caller_cpu);
    wait.sleep_at_once = carrier->pauses >= HMK_LONG_PAUSES;
    enum hmk_wait_end why = hmk_wait_phase(&wait);
    if (why == HMK_WAIT_DONE) hmk_answer(carrier, wait.state);
  }
}

void hmk_park(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  pthread_mutex_lock(&pool->lock);
  HMK_SET(carrier->record->state, HMK_CARRIER_FREE);
  carrier->slot = NULL;
  HMK_SET(carrier->command, COMMAND_PARKED);
  atomic_store(&carrier->parked, 1);
  pthread_mutex_unlock(&pool->lock);
}

void *hmk_carrier_main(void *argument) {
  struct hmk_carrier *carrier = argument;
  carrier->record->tid = (uint32_t)syscall(SYS_gettid);
  if (carrier->pool->python) hmk_python_begin(carrier);
  for (;;) {
    hmk_park(carrier);
    while (hmk_load(&carrier->command) == COMMAND_PARKED) hmk_sleep(&carrier->command, COMMAND_PARKED, 0, NULL);
    if (hmk_load(&carrier->command) == COMMAND_LEAVE) break;
    serve_slot(carrier);
  }
  if (carrier->pool->python) hmk_python_end(carrier);
  return NULL;
}

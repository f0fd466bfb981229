/* The pool of a service: its stacks, its carriers, and their binding to clients' slots.
 *
 * Only the control thread of the service calls what is here (but for hmk_park() in carrier.c, under pool->lock).
 */
#define _GNU_SOURCE
#include "carrier.h"

#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define RESERVE_BYTES (64 << 10)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define KICK (SIGRTMIN + 2)
#define KICK_EVERY_US 200

static void on_kick(int number) { (void)number; }

static uint64_t align(uint64_t bytes) { return (bytes + PAGE - 1) & ~(uint64_t)(PAGE - 1); }

struct hmk_carrier_record *hmk_pool_records(struct hmk_pool_shared *shared) {
  return (struct hmk_carrier_record *)(shared + 1);
}

struct hmk_operation_record *hmk_pool_operations(struct hmk_pool_shared *shared, uint32_t limit) {
  return (struct hmk_operation_record *)((char *)shared +
                                         align(sizeof *shared + (uint64_t)limit * sizeof(struct hmk_carrier_record)));
}

struct hmk_trace_event *hmk_pool_trace(struct hmk_pool_shared *shared, uint32_t limit, uint32_t cpus) {
  return (struct hmk_trace_event *)((char *)hmk_pool_operations(shared, limit) +
                                    align((uint64_t)cpus * HMK_MAX_OPS * sizeof(struct hmk_operation_record)));
}

/* Size in bytes of the shared object of a pool with at most `limit` carriers. */
uint64_t hmk_pool_shared_size(uint32_t limit, uint32_t cpus) {
  return (uint64_t)((char *)hmk_pool_trace(NULL, limit, cpus) - (char *)NULL) +
         align((uint64_t)HMK_TRACE_EVENTS * sizeof(struct hmk_trace_event));
}

void hmk_pool_sum(struct hmk_pool_shared *shared, uint32_t limit, struct hmk_pool_totals *totals) {
  struct hmk_carrier_record *records = hmk_pool_records(shared);
  uint32_t carriers = HMK_GET(shared->carriers);
  memset(totals, 0, sizeof *totals);
  for (uint32_t i = 0; i < carriers && i < limit; i++) {
    totals->calls += hmk_load64(&records[i].calls);
    totals->handler += hmk_load64(&records[i].handler_total);
    totals->spun += hmk_load64(&records[i].waits[0]);
    totals->yielded += hmk_load64(&records[i].waits[1]);
    totals->slept += hmk_load64(&records[i].waits[2]);
    totals->forged += hmk_load64(&records[i].forged);
  }
}

/* Ticks that the longest-running handler of the pool has run so far. */
uint64_t hmk_pool_longest(struct hmk_pool_shared *shared, uint32_t limit) {
  struct hmk_carrier_record *records = hmk_pool_records(shared);
  uint32_t carriers = HMK_GET(shared->carriers);
  uint64_t now = hmk_ticks(), longest = 0;
  for (uint32_t i = 0; i < carriers && i < limit; i++) {
    uint64_t started = hmk_load64(&records[i].started);
    if (started && now > started && now - started > longest) longest = now - started;
  }
  return longest;
}

/* Ticks of handler time charged to the threads of one client. */
uint64_t hmk_pool_charged(struct hmk_pool_shared *shared, uint32_t limit, uint32_t client) {
  struct hmk_carrier_record *records = hmk_pool_records(shared);
  uint32_t carriers = HMK_GET(shared->carriers);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < carriers && i < limit; i++)
    if (HMK_GET(records[i].client) == client && HMK_GET(records[i].state) >= HMK_CARRIER_BOUND)
      sum += hmk_load64(&records[i].handler);
  return sum;
}

struct hmk_pool *hmk_pool_open(struct hmk_pool_shared *shared, uint8_t *stacks, uint64_t stack_bytes, uint32_t limit,
                               struct hmk_wait_policy *policy, int python, uint32_t base) {
  struct hmk_pool *pool = calloc(1, sizeof *pool);
  if (!pool) return NULL;
  mallopt(M_ARENA_MAX, 2); /* an arena a carrier would cost more than its stack */
  struct sigaction action = {.sa_handler = on_kick};
  sigaction(KICK, &action, NULL);
  pool->carriers = calloc(limit, sizeof *pool->carriers);
  if (!pool->carriers) {
    free(pool);
    return NULL;
  }
  pthread_mutex_init(&pool->lock, NULL);
  pool->shared = shared;
  pool->records = hmk_pool_records(shared);
  pool->operations = hmk_pool_operations(shared, limit);
  pool->trace = hmk_pool_trace(shared, limit, policy->cpus);
  pool->stacks = stacks;
  pool->stack_bytes = stack_bytes;
  pool->limit = limit;
  pool->policy = policy;
  pool->python = python;
  pool->base = base;
  return pool;
}

static int start(struct hmk_pool *pool, pthread_t *thread, void *(*body)(void *), void *argument, uint8_t *stack) {
  pthread_attr_t attributes;
  sigset_t all, before;
  if (mprotect(stack, PAGE, PROT_NONE)) return -1;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack + PAGE, pool->stack_bytes - PAGE);
  sigfillset(&all);
  sigdelset(&all, KICK);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(thread, &attributes, body, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return failed ? -1 : 0;
}

static struct hmk_carrier *vacant(struct hmk_pool *pool, uint32_t *index) {
  for (uint32_t i = 0; i < pool->limit; i++) {
    if (!pool->carriers[i].alive) {
      *index = i;
      return &pool->carriers[i];
    }
  }
  return NULL;
}

static uint8_t *stack_of(struct hmk_pool *pool, uint32_t index) { return pool->stacks + index * pool->stack_bytes; }

/* Turn a new, empty pool into a polled one. 0, or -1. */
int hmk_pool_poll(struct hmk_pool *pool, uint32_t cpu) {
  static pthread_t poller;
  pool->watches = calloc(pool->limit, sizeof *pool->watches);
  if (!pool->watches) return -1;
  pool->polled = 1;
  pool->poll_cpu = cpu;
  return start(pool, &poller, hmk_poller_main, pool, stack_of(pool, pool->limit - 1));
}

/* A stack of the reserve is there for when no memory is: have its working part resident from the start. */
static void prefault(struct hmk_pool *pool, uint32_t index) {
  uint64_t bytes = pool->stack_bytes / 2 < RESERVE_BYTES ? pool->stack_bytes / 2 : RESERVE_BYTES;
  madvise(stack_of(pool, index) + pool->stack_bytes - bytes, bytes, MADV_POPULATE_WRITE);
}

/* Field by field: others look at a carrier that was here before (the poller, and calls of a lower class), and must go on
 * finding it PARKED. */
static void make_new(struct hmk_pool *pool, struct hmk_carrier *carrier, uint32_t index, int reserved) {
  HMK_SET(carrier->command, COMMAND_PARKED);
  atomic_store(&carrier->parked, 0);
  carrier->pool = pool;
  carrier->index = index;
  carrier->record = &pool->records[index];
  memset(carrier->record, 0, sizeof *carrier->record);
  carrier->pauses = carrier->epoch = carrier->together = carrier->trial = carrier->follows = 0;
  carrier->no_trial_until = carrier->trial_pause = 0;
  carrier->python_state = carrier->python_key = NULL;
  carrier->next = NULL;
  carrier->look = carrier->watched = 0;
  carrier->context.carrier = pool->base + index;
  carrier->context.owner = carrier;
  carrier->alive = 1;
  carrier->reserved = (uint32_t)reserved;
}

/* A parked carrier becomes available once the control thread has seen it park, so that none is bound anew, or ended,
 * whose last binding has not been cleaned up. The buffer is freed here, and not by the carrier: until it has seen it park
 * the control thread may give it one more, which must not be there for the next binding's caller. */
static void shelve(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  if (carrier->shelved) return;
  carrier->shelved = 1;
  free(atomic_exchange(&carrier->bulk, NULL));
  struct hmk_carrier **list = carrier->reserved ? &pool->reserve_list : &pool->free_list;
  pthread_mutex_lock(&pool->lock);
  carrier->next_free = *list;
  *list = carrier;
  if (carrier->reserved)
    pool->shared->reserved++;
  else
    pool->shared->free++;
  if (carrier->was_bound) pool->shared->bound--;
  carrier->was_bound = 0;
  pthread_mutex_unlock(&pool->lock);
}

/* Create up to `count` carriers; how many were. Only the control thread calls this and what follows. */
int hmk_pool_grow(struct hmk_pool *pool, uint32_t count, int reserved) {
  uint32_t made = 0, index;
  for (; made < count; made++) {
    struct hmk_carrier *carrier = vacant(pool, &index);
    if (!carrier) break;
    make_new(pool, carrier, index, reserved);
    if (reserved) prefault(pool, index);
    if (pool->polled) {
      hmk_park(carrier);
    } else if (start(pool, &carrier->thread, hmk_carrier_main, carrier, stack_of(pool, index))) {
      carrier->alive = 0;
      break;
    }
    if (index >= pool->shared->carriers) HMK_SET(pool->shared->carriers, index + 1);
    pool->shared->created++;
    while (!atomic_load(&carrier->parked)) sched_yield();
    shelve(carrier);
  }
  return (int)made;
}

static struct hmk_carrier *take_from(struct hmk_pool *pool, struct hmk_carrier **list, uint32_t *counter) {
  pthread_mutex_lock(&pool->lock);
  struct hmk_carrier *carrier = *list;
  if (carrier) {
    *list = carrier->next_free;
    --*counter;
    carrier->shelved = 0;
    atomic_store(&carrier->parked, 0);
  }
  pthread_mutex_unlock(&pool->lock);
  return carrier;
}

static struct hmk_carrier *take_free(struct hmk_pool *pool) {
  return take_from(pool, &pool->free_list, &pool->shared->free);
}

static void end_thread(struct hmk_pool *pool, struct hmk_carrier *carrier) {
  uint8_t *stack = stack_of(pool, carrier->index);
  hmk_exchange(&carrier->command, COMMAND_LEAVE);
  hmk_wake(&carrier->command);
  pthread_join(carrier->thread, NULL);
  mprotect(stack, PAGE, PROT_READ | PROT_WRITE);
  madvise(stack, pool->stack_bytes, MADV_REMOVE);
}

/* End up to `count` parked carriers and give their stacks' memory back. */
int hmk_pool_shrink(struct hmk_pool *pool, uint32_t count) {
  uint32_t ended = 0;
  for (; ended < count; ended++) {
    struct hmk_carrier *carrier = take_free(pool);
    if (!carrier) break;
    if (!pool->polled) end_thread(pool, carrier); /* a polled carrier has none: it borrows the poller's stack */
    carrier->alive = 0;
    HMK_SET(carrier->record->state, HMK_CARRIER_NONE);
    pool->shared->reclaimed++;
  }
  return (int)ended;
}

/* The slot becomes callable: whatever its state word held, it is now ready, with the sequence it had. Death is final. */
static void open_slot(struct hmk_carrier *carrier) {
  uint32_t *word = &carrier->slot->leg[0].state;
  uint32_t state = hmk_load(word);
  do {
    carrier->sequence = HMK_SEQUENCE(state);
    if (HMK_PHASE(state) == HMK_PHASE_DIED) return;
  } while (!hmk_swap(word, &state, HMK_STATE(HMK_SEQUENCE(state), HMK_PHASE_REPLY)));
}

/* Have a carrier obey its new command: a thread that sleeps on it is woken, a poller sees the count. */
static void announce(struct hmk_carrier *carrier) {
  if (carrier->pool->polled)
    atomic_fetch_add((_Atomic uint32_t *)&carrier->pool->orders, 1);
  else
    hmk_wake(&carrier->command);
}

/* A poller looks where the client says; what is in the slot's way now may not have been said. */
static void have_looked_at(struct hmk_carrier *carrier) {
  hmk_exchange(&carrier->look, 1);
  announce(carrier);
}

/* Take a parked carrier, to be bound next; one of the reserve only if told. Its index, or -1 when none is parked. */
int hmk_pool_take(struct hmk_pool *pool, int reserve) {
  struct hmk_carrier *carrier = take_free(pool);
  if (!carrier && reserve) carrier = take_from(pool, &pool->reserve_list, &pool->shared->reserved);
  return carrier ? (int)carrier->index : -1;
}

/* Bind a carrier that was taken to slot `index` of a client's frames; its calls count for no more than `max_priority`, and its
 * handler time is added to what the calling thread was `charged` before. */
void hmk_pool_bind(struct hmk_pool *pool, uint32_t taken, uint32_t client, struct hmk_frames *frames, uint32_t index,
                   uint32_t max_priority, uint64_t charged) {
  struct hmk_carrier *carrier = &pool->carriers[taken];
  struct hmk_slot *slot = &frames->slots[index];
  carrier->max_priority = max_priority;
  carrier->slot = slot;
  carrier->ready = &frames->ready[index / 64];
  carrier->place = index % 64;
  carrier->look = 1; /* a request may come before the poller knows of the binding */
  carrier->pauses = 0;
  carrier->was_bound = 1;
  carrier->context.client = client;
  carrier->context.slot = slot;
  carrier->record->client = client;
  carrier->record->slot = index;
  hmk_store64(&carrier->record->handler, charged);
  hmk_store64(&carrier->record->last_used, hmk_ticks());
  pthread_mutex_lock(&pool->lock);
  if (++pool->shared->bound > pool->shared->peak) pool->shared->peak = pool->shared->bound;
  pthread_mutex_unlock(&pool->lock);
  HMK_SET(carrier->record->state, HMK_CARRIER_BOUND);
  open_slot(carrier);
  hmk_exchange(&carrier->command, COMMAND_RUN);
  announce(carrier);
}

/* Close the slot against new requests; fails when one is being served. */
static int close_slot(struct hmk_carrier *carrier) {
  uint32_t *word = &carrier->slot->leg[0].state;
  uint32_t state = hmk_load(word);
  do {
    if (HMK_PHASE(state) == HMK_PHASE_DIED) return 0; /* final: no request comes here any more */
    if (!(HMK_READY_PHASES & HMK_BIT(HMK_PHASE(state)))) return -1;
  } while (!hmk_swap(word, &state, (state & ~(uint32_t)HMK_SLEEP) | HMK_UNBOUND));
  return 0;
}

/* Take a carrier off its slot. Unforced: -1 when a request is in progress. Forced (its client is gone): the carrier
 * leaves when its handler returns; ask hmk_pool_parked(). */
int hmk_pool_unbind(struct hmk_pool *pool, uint32_t index, int force) {
  struct hmk_carrier *carrier = &pool->carriers[index];
  if (hmk_load(&carrier->command) != COMMAND_RUN) return 0; /* parked, or told to: the slot may be gone */
  if (close_slot(carrier) && !force) {
    if (pool->polled) have_looked_at(carrier);
    return -1;
  }
  hmk_exchange(&carrier->command, COMMAND_PARK);
  if (pool->polled) announce(carrier);
  carrier->kicked = 0;
  if (!force) pool->shared->reclaimed++;
  hmk_pool_parked(pool, index);
  return 0;
}

/* Whether the carrier has left its slot; a kick, in case it sleeps on a futex its client has tampered with. */
int hmk_pool_parked(struct hmk_pool *pool, uint32_t index) {
  struct hmk_carrier *carrier = &pool->carriers[index];
  if (atomic_load(&carrier->parked)) {
    shelve(carrier);
    return 1;
  }
  /* Kicks as fast as we are asked would keep the carrier in its signal handler for ever. */
  uint64_t now = hmk_ticks();
  if (now - carrier->kicked < KICK_EVERY_US * (pool->policy->tick_khz / 1000 + 1)) return 0;
  carrier->kicked = now;
  uint32_t tid = HMK_GET(carrier->record->tid);
  if (tid) syscall(SYS_tgkill, getpid(), tid, KICK);
  return 0;
}

/* Give a bound carrier the buffer shared with its caller; the old one stays mapped until the binding ends. */
int hmk_pool_set_bulk(struct hmk_pool *pool, uint32_t index, char *at, uint32_t size) {
  struct hmk_bulk *bulk = malloc(sizeof *bulk);
  if (!bulk) return -1;
  bulk->at = at;
  bulk->size = size;
  struct hmk_bulk *old = atomic_exchange(&pool->carriers[index].bulk, bulk);
  (void)old; /* a call may be reading it: the few bytes live until the process ends */
  return 0;
}

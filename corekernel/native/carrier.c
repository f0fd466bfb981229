/* The service half of a call: carriers, and the pool they live in.
 *
 * A carrier is a thread of the service whose machine stack is a region of the service's stack-pool object (lowest page
 * a guard). It is either parked in the pool or bound to one slot of one client, where it waits for requests. Who calls
 * is what the binding says; nothing in the frame is believed.
 *
 * `command` is how the control thread of the service reaches a carrier: RUN, PARK (leave the slot) or LEAVE (end).
 * It is private memory: a client that scribbles over the slot, or requeues the futex a carrier sleeps on, cannot keep
 * the carrier, because every command is followed by a signal to that thread until it is obeyed.
 */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define RESERVE_BYTES (64 << 10)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define NO_CPU 0xffffffffu
#define PROMOTE_AFTER 64
#define PROBE_EVERY 64
#define DEFER_MS 2
#define KICK (SIGRTMIN + 2)

static void on_kick(int number) { (void)number; }

/* ---- one call ---- */

static int32_t saturate(uint64_t ticks) { return ticks > 0x7fffffff ? 0x7fffffff : (int32_t)ticks; }

static void observe(struct hmk_pool *pool, const struct hmk_context *context, uint32_t cpu, uint64_t started,
                    uint64_t ended, int64_t status) {
  uint32_t flags = HMK_GET(pool->shared->observe);
  uint32_t operation = context->operation < HMK_MAX_OPS ? context->operation : 0;
  uint64_t waited = started > context->issued ? started - context->issued : 0;
  if (flags & HMK_OBSERVE_OPERATIONS) {
    struct hmk_operation_record *record = &pool->operations[(cpu % pool->policy->cpus) * HMK_MAX_OPS + operation];
    uint64_t units = (ended - started + waited) >> 6;
    unsigned bucket = units ? 64 - (unsigned)__builtin_clzll(units) : 0;
    if (bucket >= HMK_HISTOGRAM) bucket = HMK_HISTOGRAM - 1;
    atomic_fetch_add_explicit((_Atomic uint64_t *)&record->calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit((_Atomic uint64_t *)&record->handler, ended - started, memory_order_relaxed);
    atomic_fetch_add_explicit((_Atomic uint32_t *)&record->histogram[bucket], 1, memory_order_relaxed);
  }
  if (flags & HMK_OBSERVE_TRACE) {
    uint64_t at =
        atomic_fetch_add_explicit((_Atomic uint64_t *)&pool->shared->trace_head, 1, memory_order_relaxed);
    pool->trace[at % HMK_TRACE_EVENTS] = (struct hmk_trace_event){.at = started,
                                                                  .duration = (uint32_t)saturate(ended - started),
                                                                  .client = context->client,
                                                                  .operation = (uint16_t)context->operation,
                                                                  .status = (int32_t)status,
                                                                  .cpu = cpu,
                                                                  .waited = (uint32_t)saturate(waited)};
  }
}

/* Copy a request once from memory its caller can still write, and check it. */
static int64_t admit(struct hmk_context *context, struct hmk_leg *leg, char *copy) {
  uint32_t bulk = HMK_GET(leg->flags) & HMK_LEG_BULK;
  uint32_t length = HMK_GET(leg->length);
  context->leg = leg;
  context->operation = HMK_GET(leg->operation);
  context->registers = HMK_GET(leg->registers);
  context->depth = HMK_GET(leg->depth);
  context->priority = HMK_GET(leg->priority);
  context->deadline = HMK_GET(leg->deadline);
  context->issued = HMK_GET(leg->issued);
  context->in_length = length;
  context->in_bulk = bulk;
  context->returns = context->out_length = context->out_bulk = 0;
  if (context->registers > HMK_REGISTERS) return HMK_E_BAD_FRAME;
  if (context->depth >= HMK_MAX_DEPTH) return HMK_E_TOO_DEEP;
  if (length > (bulk ? context->bulk_size : HMK_INLINE)) return HMK_E_BAD_FRAME;
  for (unsigned i = 0; i < context->registers; i++) context->args[i] = HMK_GET(leg->args[i]);
  context->in = bulk ? context->bulk : (char *)leg->payload;
  if (copy && !bulk && length) {
    memcpy(copy, leg->payload, length);
    context->in = copy;
  }
  return HMK_OK;
}

static void publish(const struct hmk_context *context, struct hmk_leg *leg, int64_t status) {
  unsigned returns = context->returns > HMK_REGISTERS ? HMK_REGISTERS : context->returns;
  for (unsigned i = 0; i < returns; i++) HMK_SET(leg->rets[i], context->rets[i]);
  HMK_SET(leg->reply_length, context->out_length);
  HMK_SET(leg->flags, context->out_bulk ? HMK_LEG_REPLY_BULK : 0);
  HMK_SET(leg->status, status);
}

/* Give the reply its payload: inline when it fits, else in the caller's shared buffer. 0, or -1 when it fits neither. */
int hmk_reply(struct hmk_context *context, const char *data, uint32_t length) {
  int bulk = length > HMK_INLINE;
  if (bulk && length > context->bulk_size) return -1;
  memmove(bulk ? context->bulk : (char *)context->leg->payload, data, length);
  context->out_length = length;
  context->out_bulk = (uint32_t)bulk;
  return 0;
}

/* The call that this thread is serving; the service half may have thread-local storage. */
static _Thread_local struct hmk_context *current;

struct hmk_context *hmk_current(void) { return current; }

static int64_t run(struct hmk_pool *pool, struct hmk_context *context) {
  struct hmk_context *outer = current;
  if (context->operation == 0) return HMK_OK; /* the transport's own null call */
  current = context;
  int64_t status = pool->python ? hmk_python_handler(context) : hmk_c_handler(context);
  current = outer;
  return status;
}

/* ---- priority ---- */

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
static void defer(struct hmk_pool *pool, uint32_t priority, uint64_t now) {
  uint64_t until = now + pool->policy->tick_khz * DEFER_MS;
  while (higher_class_runs(pool, priority) && hmk_ticks() < until) hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
}

static int64_t run_in_order(struct hmk_pool *pool, struct hmk_context *context, uint64_t now) {
  if (context->priority < HMK_PRIORITY_HIGH) {
    if (context->priority < HMK_PRIORITY_NORMAL || hmk_load(&pool->high)) defer(pool, context->priority, now);
    return run(pool, context);
  }
  atomic_fetch_add((_Atomic uint32_t *)&pool->high, 1);
  int64_t status = run(pool, context);
  atomic_fetch_sub((_Atomic uint32_t *)&pool->high, 1);
  return status;
}

/* ---- a bound carrier ---- */

static void set_affinity(uint32_t cpu, uint32_t cpus) {
  uint64_t mask = cpu == NO_CPU ? (cpus >= 64 ? ~0ull : (1ull << cpus) - 1) : 1ull << cpu;
  hmk_syscall(HMK_SYS_SCHED_SETAFFINITY, 0, sizeof mask, (long)&mask, 0);
}

/* Where to run is the core's decision, published in the pool's shared page; obeying it is the carrier's, since a
 * client may not move a thread of another user. Promotion: caller and carrier met on one CPU while another is free. */
static void obey_placement(struct hmk_carrier *carrier, uint32_t cpu, uint32_t caller_cpu) {
  struct hmk_pool *pool = carrier->pool;
  struct hmk_pool_shared *shared = pool->shared;
  uint32_t epoch = hmk_load(&shared->place_epoch);
  uint32_t target = HMK_GET(shared->place_cpu);
  uint32_t mode = HMK_GET(shared->placement);
  if (epoch != carrier->epoch) {
    carrier->epoch = epoch;
    carrier->together = 0;
    set_affinity(mode == HMK_PLACE_PINNED && target < pool->policy->cpus ? target : NO_CPU, pool->policy->cpus);
    return;
  }
  if (mode == HMK_PLACE_PINNED || caller_cpu >= pool->policy->cpus) return;
  if (mode == HMK_PLACE_SAME) {
    if (caller_cpu != cpu) set_affinity(caller_cpu, pool->policy->cpus);
    return;
  }
  carrier->together = caller_cpu == cpu ? carrier->together + 1 : 0;
  if (carrier->together < PROMOTE_AFTER || target >= pool->policy->cpus || target == cpu) return;
  carrier->together = 0;
  set_affinity(target, pool->policy->cpus);
  atomic_fetch_add_explicit((_Atomic uint32_t *)&shared->promoted, 1, memory_order_relaxed);
}

static void serve_request(struct hmk_carrier *carrier, uint32_t state, char *copy) {
  struct hmk_pool *pool = carrier->pool;
  struct hmk_carrier_record *record = carrier->record;
  struct hmk_leg *leg = &carrier->slot->leg[0];
  struct hmk_context *context = &carrier->context;
  struct hmk_bulk *bulk = atomic_load_explicit(&carrier->bulk, memory_order_acquire);
  uint32_t sequence = HMK_SEQUENCE(state);
  uint32_t caller_cpu = HMK_GET(leg->caller_cpu);
  uint32_t cpu;
  uint64_t started = hmk_ticks_cpu(&cpu);
  HMK_SET(leg->carrier_cpu, cpu);
  hmk_store64(&record->started, started);
  HMK_SET(record->state, HMK_CARRIER_RUNNING);
  context->bulk = bulk ? bulk->at : NULL;
  context->bulk_size = bulk ? bulk->size : 0;
  int64_t status = admit(context, leg, copy);
  if (sequence != ((carrier->sequence + 1) & 0xffffff)) status = HMK_E_BAD_FRAME;
  carrier->sequence = sequence;
  if (context->priority > carrier->max_priority) context->priority = carrier->max_priority;
  if (status == HMK_OK)
    status = run_in_order(pool, context, started);
  else
    hmk_count64(&record->forged, 1);
  uint64_t ended = hmk_ticks();
  hmk_count64(&record->calls, 1);
  hmk_count64(&record->handler, ended - started);
  hmk_count64(&record->handler_total, ended - started);
  hmk_store64(&record->last_used, ended);
  hmk_store64(&record->started, 0);
  HMK_SET(record->state, HMK_CARRIER_BOUND);
  record->cpu = cpu;
  HMK_SET(leg->charged, record->handler);
  if (HMK_GET(pool->shared->observe)) observe(pool, context, cpu, started, ended, status);
  publish(context, leg, status);
  /* A caller that cancelled meanwhile finds the slot usable again; one that sleeps is woken. */
  uint32_t old = hmk_exchange(&leg->state, HMK_STATE(sequence, HMK_PHASE_REPLY));
  if (old & HMK_SLEEP) hmk_wake(&leg->state);
  carrier->cpu = cpu;
  carrier->caller_cpu = caller_cpu;
}

static void serve_call(struct hmk_carrier *carrier, uint32_t state, char *copy) {
  if (carrier->pool->python) {
    hmk_python_enter(carrier);
    serve_request(carrier, state, NULL);
    hmk_python_leave();
  } else {
    serve_request(carrier, state, copy);
  }
  obey_placement(carrier, carrier->cpu, carrier->caller_cpu);
}

/* Waiting for the next request is not waiting for a reply: after two waits that came to sleeping the carrier sleeps
 * at once, and tries the whole policy again now and then. */
static uint32_t sleep_at_once(struct hmk_carrier *carrier) {
  return carrier->missed >= 2 && ++carrier->probe % PROBE_EVERY;
}

static void serve(struct hmk_carrier *carrier) {
  struct hmk_leg *leg = &carrier->slot->leg[0];
  char copy[HMK_INLINE];
  struct hmk_wait wait = {.word = &leg->state,
                          .phases = ~HMK_BIT(HMK_PHASE_REQUEST) & 0xffff,
                          .policy = carrier->pool->policy,
                          .command = &carrier->command,
                          .waits = carrier->record->waits};
  while (hmk_load(&carrier->command) == COMMAND_RUN) {
    wait.peer_cpu = HMK_GET(leg->caller_cpu);
    wait.sleep_at_once = sleep_at_once(carrier);
    enum hmk_wait_end why = hmk_wait_phase(&wait);
    carrier->missed = wait.slept ? carrier->missed + 1 : 0;
    if (why == HMK_WAIT_DONE) serve_call(carrier, wait.state, copy);
  }
}

static void park(struct hmk_carrier *carrier) {
  struct hmk_pool *pool = carrier->pool;
  pthread_mutex_lock(&pool->lock);
  HMK_SET(carrier->record->state, HMK_CARRIER_FREE);
  carrier->slot = NULL;
  free(atomic_exchange(&carrier->bulk, NULL));
  struct hmk_carrier **list = carrier->reserved ? &pool->reserve_list : &pool->free_list;
  carrier->next_free = *list;
  *list = carrier;
  if (carrier->reserved)
    pool->shared->reserved++;
  else
    pool->shared->free++;
  if (carrier->was_bound) pool->shared->bound--;
  carrier->was_bound = 0;
  atomic_store(&carrier->parked, 1);
  pthread_mutex_unlock(&pool->lock);
}

/* Isolation class IC1: one thread on a CPU of its own looks at every bound slot in turn and serves what it finds, on
 * its own stack; a call then costs two cache-line transfers and no host scheduling at all. */
static void *poller_main(void *argument) {
  struct hmk_pool *pool = argument;
  char copy[HMK_INLINE];
  struct hmk_carrier self = {.pool = pool, .context = {.carrier = NO_CPU}};
  if (pool->python) hmk_python_begin(&self);
  set_affinity(pool->poll_cpu, pool->policy->cpus);
  for (;;) {
    uint32_t carriers = hmk_load(&pool->shared->carriers);
    for (uint32_t i = 0; i < carriers; i++) {
      struct hmk_carrier *carrier = &pool->carriers[i];
      if (atomic_load_explicit(&carrier->parked, memory_order_acquire)) continue;
      uint32_t command = hmk_load(&carrier->command);
      if (command == COMMAND_PARK) park(carrier);
      if (command != COMMAND_RUN) continue;
      uint32_t state = hmk_load(&carrier->slot->leg[0].state);
      if (HMK_PHASE(state) != HMK_PHASE_REQUEST) continue;
      carrier->python_state = self.python_state;
      serve_call(carrier, state, copy);
    }
    hmk_pause();
  }
  return NULL;
}

static void *carrier_main(void *argument) {
  struct hmk_carrier *carrier = argument;
  carrier->record->tid = (uint32_t)syscall(SYS_gettid);
  if (carrier->pool->python) hmk_python_begin(carrier);
  for (;;) {
    park(carrier);
    while (hmk_load(&carrier->command) == COMMAND_PARK) hmk_sleep(&carrier->command, COMMAND_PARK, 0, NULL);
    if (hmk_load(&carrier->command) == COMMAND_LEAVE) break;
    serve(carrier);
  }
  if (carrier->pool->python) hmk_python_end(carrier);
  return NULL;
}

/* ---- the pool ---- */

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
    if (pool->records[i].state == HMK_CARRIER_NONE && !pool->carriers[i].alive) {
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
  pool->polled = 1;
  pool->poll_cpu = cpu;
  return start(pool, &poller, poller_main, pool, stack_of(pool, pool->limit - 1));
}

/* A stack of the reserve is there for when no memory is: have its working part resident from the start. */
static void prefault(struct hmk_pool *pool, uint32_t index) {
  uint64_t bytes = pool->stack_bytes / 2 < RESERVE_BYTES ? pool->stack_bytes / 2 : RESERVE_BYTES;
  madvise(stack_of(pool, index) + pool->stack_bytes - bytes, bytes, MADV_POPULATE_WRITE);
}

/* Create up to `count` carriers; how many were. Only the control thread calls this and what follows. */
int hmk_pool_grow(struct hmk_pool *pool, uint32_t count, int reserved) {
  uint32_t made = 0, index;
  for (; made < count; made++) {
    struct hmk_carrier *carrier = vacant(pool, &index);
    if (!carrier) break;
    memset(carrier, 0, sizeof *carrier);
    carrier->pool = pool;
    carrier->index = index;
    carrier->record = &pool->records[index];
    memset(carrier->record, 0, sizeof *carrier->record);
    carrier->command = COMMAND_PARK;
    carrier->context.carrier = pool->base + index;
    carrier->context.owner = carrier;
    carrier->alive = 1;
    carrier->reserved = (uint32_t)reserved;
    if (reserved) prefault(pool, index);
    if (pool->polled) {
      park(carrier);
    } else if (start(pool, &carrier->thread, carrier_main, carrier, stack_of(pool, index))) {
      carrier->alive = 0;
      break;
    }
    if (index >= pool->shared->carriers) pool->shared->carriers = index + 1;
    pool->shared->created++;
    while (!atomic_load(&carrier->parked)) sched_yield();
  }
  return (int)made;
}

static struct hmk_carrier *take_from(struct hmk_pool *pool, struct hmk_carrier **list, uint32_t *counter) {
  pthread_mutex_lock(&pool->lock);
  struct hmk_carrier *carrier = *list;
  if (carrier) {
    *list = carrier->next_free;
    --*counter;
    atomic_store(&carrier->parked, 0);
  }
  pthread_mutex_unlock(&pool->lock);
  return carrier;
}

static struct hmk_carrier *take_free(struct hmk_pool *pool) {
  return take_from(pool, &pool->free_list, &pool->shared->free);
}

/* End up to `count` parked carriers and give their stacks' memory back. */
int hmk_pool_shrink(struct hmk_pool *pool, uint32_t count) {
  uint32_t ended = 0;
  for (; ended < count; ended++) {
    struct hmk_carrier *carrier = take_free(pool);
    if (!carrier) break;
    if (!pool->polled) {
      hmk_exchange(&carrier->command, COMMAND_LEAVE);
      hmk_wake(&carrier->command);
      pthread_join(carrier->thread, NULL);
    }
    uint8_t *stack = stack_of(pool, carrier->index);
    mprotect(stack, PAGE, PROT_READ | PROT_WRITE);
    madvise(stack, pool->stack_bytes, MADV_REMOVE);
    carrier->alive = 0;
    HMK_SET(carrier->record->state, HMK_CARRIER_NONE);
    pool->shared->reclaimed++;
  }
  return (int)ended;
}

/* The slot becomes callable: whatever its state word held, it is now ready, with the sequence it had. */
static void open_slot(struct hmk_carrier *carrier) {
  uint32_t *word = &carrier->slot->leg[0].state;
  uint32_t state = hmk_load(word);
  do {
    carrier->sequence = HMK_SEQUENCE(state);
  } while (!hmk_swap(word, &state, HMK_STATE(HMK_SEQUENCE(state), HMK_PHASE_REPLY)));
}

/* Take a parked carrier, to be bound next; one of the reserve only if told. Its index, or -1 when none is parked. */
int hmk_pool_take(struct hmk_pool *pool, int reserve) {
  struct hmk_carrier *carrier = take_free(pool);
  if (!carrier && reserve) carrier = take_from(pool, &pool->reserve_list, &pool->shared->reserved);
  return carrier ? (int)carrier->index : -1;
}

/* Bind a carrier that was taken to a slot; its calls count for no more than `max_priority`. */
void hmk_pool_bind(struct hmk_pool *pool, uint32_t taken, uint32_t client, uint32_t index, struct hmk_slot *slot,
                   uint32_t max_priority) {
  struct hmk_carrier *carrier = &pool->carriers[taken];
  carrier->max_priority = max_priority;
  carrier->slot = slot;
  carrier->missed = 0;
  carrier->was_bound = 1;
  carrier->context.client = client;
  carrier->context.slot = slot;
  carrier->record->client = client;
  carrier->record->slot = index;
  hmk_store64(&carrier->record->handler, 0);
  hmk_store64(&carrier->record->last_used, hmk_ticks());
  pthread_mutex_lock(&pool->lock);
  if (++pool->shared->bound > pool->shared->peak) pool->shared->peak = pool->shared->bound;
  pthread_mutex_unlock(&pool->lock);
  HMK_SET(carrier->record->state, HMK_CARRIER_BOUND);
  open_slot(carrier);
  hmk_exchange(&carrier->command, COMMAND_RUN);
  hmk_wake(&carrier->command);
}

/* Close the slot against new requests; fails when one is being served. */
static int close_slot(struct hmk_carrier *carrier) {
  uint32_t *word = &carrier->slot->leg[0].state;
  uint32_t state = hmk_load(word);
  do {
    if (!(HMK_READY_PHASES & HMK_BIT(HMK_PHASE(state)))) return -1;
  } while (!hmk_swap(word, &state, (state & ~(uint32_t)HMK_SLEEP) | HMK_UNBOUND));
  return 0;
}

/* Take a carrier off its slot. Unforced: -1 when a request is in progress. Forced (its client is gone): the carrier
 * leaves when its handler returns; ask hmk_pool_parked(). */
int hmk_pool_unbind(struct hmk_pool *pool, uint32_t index, int force) {
  struct hmk_carrier *carrier = &pool->carriers[index];
  if (atomic_load(&carrier->parked)) return 0;
  if (close_slot(carrier) && !force) return -1;
  hmk_exchange(&carrier->command, COMMAND_PARK);
  if (!force) pool->shared->reclaimed++;
  hmk_pool_parked(pool, index);
  return 0;
}

/* Whether the carrier has left its slot; a kick, in case it sleeps on a futex its client has tampered with. */
int hmk_pool_parked(struct hmk_pool *pool, uint32_t index) {
  struct hmk_carrier *carrier = &pool->carriers[index];
  if (atomic_load(&carrier->parked)) return 1;
  if (carrier->record->tid) syscall(SYS_tgkill, getpid(), carrier->record->tid, KICK);
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

/* ---- conditions ---- */

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

/* ---- the core's part ---- */

/* End whatever goes on in a slot of a dead service. */
void hmk_frames_kill(struct hmk_slot *slots, uint32_t index) {
  uint32_t *word = &slots[index].leg[0].state;
  uint32_t old = hmk_exchange(word, HMK_STATE(HMK_SEQUENCE(hmk_load(word)), HMK_PHASE_DIED));
  if (old & HMK_SLEEP) hmk_wake(word);
  hmk_notify(&slots[index]);
}

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
  policy->hog = 200 * microsecond;
  if (variant == 0) {
    policy->spin = cpus > 1 ? 5 * microsecond : 0;
    policy->yield = 100 * microsecond;
  }
  if (variant == 1) {
    policy->spin = 50 * microsecond;
    policy->spin_same = 1;
  }
}

/* ---- chains ---- */

/* Serve a call back into this service on the stack that already waits here. */
static void serve_nested(struct hmk_link *link, struct hmk_leg *leg) {
  struct hmk_pool *pool = link->nested_context;
  char copy[HMK_INLINE];
  struct hmk_context context = {.carrier = link->nested_key, .slot = link->slot};
  int64_t status = admit(&context, leg, pool->python ? NULL : copy);
  if (status == HMK_OK) status = run(pool, &context);
  publish(&context, leg, status);
}

/* Let the callee of `link` (a service, whose binding record is `key`) call back into this service while we wait for it. */
void hmk_accept_nested(struct hmk_link *link, struct hmk_pool *pool, uint32_t key) {
  link->nested_context = pool;
  link->nested_key = key;
  link->nested = (void *)serve_nested;
}

static int64_t enter_nested(struct hmk_leg *leg, uint32_t sequence) {
  uint32_t state = hmk_load(&leg->state);
  do {
    if (HMK_PHASE(state) == HMK_PHASE_CANCELLED) return HMK_E_CANCELLED;
    if (HMK_PHASE(state) != HMK_PHASE_REQUEST && HMK_PHASE(state) != HMK_PHASE_NESTED_REPLY) return HMK_E_BAD_FRAME;
  } while (!hmk_swap(&leg->state, &state, HMK_STATE(sequence, HMK_PHASE_NESTED)));
  if (state & HMK_SLEEP) hmk_wake(&leg->state);
  return HMK_OK;
}

/* Call the service that called us: A -> B -> A runs on the stack already waiting in A, in the nested leg. The reply
 * stands in `result` as after hmk_call(); payloads are inline only. */
int64_t hmk_call_back(struct hmk_context *context, const struct hmk_message *message, struct hmk_link *result) {
  struct hmk_carrier *carrier = context->owner;
  struct hmk_leg *leg = &context->slot->leg[0];
  uint64_t waits[3] = {0};
  result->slot = context->slot;
  result->depth = context->depth + 1;
  int64_t status = hmk_fill_leg(result, &context->slot->leg[1], message);
  if (status == HMK_OK) status = enter_nested(leg, carrier->sequence);
  if (status != HMK_OK) return status;
  struct hmk_wait wait = {.word = &leg->state,
                          .phases = HMK_BIT(HMK_PHASE_NESTED),
                          .policy = carrier->pool->policy,
                          .command = &carrier->command,
                          .waits = waits,
                          .peer_cpu = HMK_GET(leg->caller_cpu)};
    enum hmk_wait_end why;
  do {
    why = hmk_wait_phase(&wait);
  } while (why == HMK_WAIT_SIGNAL);
  if (why == HMK_WAIT_COMMAND) return HMK_E_DIED;
  if (HMK_PHASE(wait.state) != HMK_PHASE_NESTED_REPLY) return HMK_E_BAD_FRAME;
  return hmk_collect_leg(result, &context->slot->leg[1], message);
}

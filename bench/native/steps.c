/*
 * The steps of one call, each in a loop of its own.
 *
 * The code timed is the dispatcher's: this file is compiled with its sources, and includes carrier.c to reach what is
 * static there. One slot stands in private memory; one thread plays the caller and the carrier of it in turn, so
 * nobody ever waits, and every line it touches stays in this CPU's cache. What that leaves out, the way of a line or
 * of the CPU from one process to another, is measured by the ping-pong at the end, between two processes.
 *
 * Invariants: one thread at a time uses this file. Every loop begins with the slot ready and the link free, and counts
 * only if each of its runs, and a whole call before and after, ended well. Ticks are those of the time stamp counter,
 * read before and after a loop, never within (steps_lock() excepted).
 */
#include <Python.h>
#undef _GNU_SOURCE /* Python.h defines it with a value, carrier.c without */

#include "carrier.c"

#include <time.h>

#include "steps.cdef.h"

#define LARGEST (1 << 20)
#define APART 2048 /* where in its page the caller's buffer begins; the shared one begins at 0 */
#define ALIASED 16 /* where malloc() often has it begin */
#define OPERATION_ECHO 2
#define KEEP __asm__ volatile("" ::: "memory")

/* The service measured here is the one in C. */
void hmk_python_begin(struct hmk_carrier *carrier) { (void)carrier; }
void hmk_python_end(struct hmk_carrier *carrier) { (void)carrier; }
void hmk_python_enter(struct hmk_carrier *carrier, int in_line) { (void)carrier, (void)in_line; }
void hmk_python_leave(struct hmk_carrier *carrier) { (void)carrier; }
int64_t hmk_python_handler(struct hmk_context *context) {
  (void)context;
  return HMK_E_FAULT;
}

static struct {
  _Alignas(4096) struct hmk_slot slot;
  struct hmk_pool_shared shared;
  struct hmk_carrier_record record;
  struct hmk_operation_record operations[HMK_MAX_OPS];
  struct hmk_trace_event trace[HMK_TRACE_EVENTS];
  _Alignas(4096) uint8_t bulk[LARGEST];
  uint8_t in[LARGEST];
  _Alignas(4096) uint8_t out[APART + LARGEST];
} memory;

static struct hmk_wait_policy policy = {.tick_khz = 1000000, .cpus = 1};
static struct hmk_pool pool = {.shared = &memory.shared,
                               .records = &memory.record,
                               .operations = memory.operations,
                               .trace = memory.trace,
                               .policy = &policy};
static struct hmk_bulk bulk = {.at = (char *)memory.bulk, .size = LARGEST};
static struct hmk_carrier carrier = {.pool = &pool,
                                     .record = &memory.record,
                                     .slot = &memory.slot,
                                     .max_priority = HMK_PRIORITY_NORMAL,
                                     .context = {.owner = &carrier, .slot = &memory.slot}};
static struct hmk_link to_slot = {.slot = &memory.slot,
                                  .bulk = memory.bulk,
                                  .bulk_size = LARGEST,
                                  .policy = &policy,
                                  .priority = HMK_PRIORITY_NORMAL};

static uint32_t *word(void) { return &memory.slot.leg[0].state; }

/* The slot as it stands between two calls. */
static void make_ready(uint32_t observe) {
  memory.shared.observe = observe;
  memory.shared.placement = HMK_PLACE_PINNED;
  carrier.pauses = 0;
  to_slot.busy = 0;
  carrier.bulk = &bulk;
  *word() = HMK_STATE(carrier.sequence, HMK_PHASE_REPLY);
}

static struct hmk_message message_of_length(uint32_t length) {
  struct hmk_message message = {.operation = length ? OPERATION_ECHO : 1,
                                .registers = length ? 1 : 0,
                                .returns = length ? 1 : 0,
                                .in = memory.in,
                                .in_length = length,
                                .out = memory.out + APART,
                                .out_capacity = length};
  message.args[0] = length;
  return message;
}

static int64_t call_once(const struct hmk_message *message) {
  int64_t status = hmk_start(&to_slot, message);
  if (status != HMK_OK) return status;
  serve_call(&carrier, *word());
  return hmk_finish(&to_slot, message);
}

/* A right call, and no wrong one before: a loop that timed refusals would time the wrong thing. */
static int intact(const struct hmk_message *message, uint32_t observe) {
  make_ready(observe);
  memset(memory.out + APART, 1, message->in_length);
  return call_once(message) == HMK_OK && !memory.record.forged &&
         !memcmp(memory.in, memory.out + APART, message->in_length);
}

/* Put the slot where a carrier finds it when a request has come. */
static void request_again(uint32_t length) {
  struct hmk_leg *leg = &memory.slot.leg[0];
  leg->length = length;
  leg->flags = length > HMK_INLINE ? HMK_LEG_BULK : 0;
  *word() = HMK_STATE((carrier.sequence + 1) & 0xffffff, HMK_PHASE_REQUEST);
}

static void swap_word(void) {
  uint32_t state = hmk_load(word());
  hmk_swap(word(), &state, state + 0x100);
}

/* As serve_request() does before it publishes. */
static void watch(void) {
  if (HMK_GET(pool.shared->observe)) hmk_observe(&pool, &carrier.context, 0, 0, 0, HMK_OK);
}

/* Of a pair that has found its places: nothing is to be moved. */
static void place_settled(void) {
  memory.shared.placement = HMK_PLACE_FREE;
  carrier.caller_cpu = 0;
  carrier.cpu = 1;
  hmk_find_place(&carrier);
}

/* The reply copied to where the two buffers differ by a few bytes modulo the page size. */
static int64_t collect_aliased(struct hmk_message message) {
  message.out = memory.out + ALIASED;
  return hmk_collect_leg(&to_slot, &memory.slot.leg[0], &message);
}

static int64_t step_once(enum steps_step step, uint32_t length, const struct hmk_message *message) {
  struct hmk_leg *leg = &memory.slot.leg[0];
  struct timespec now;
  uint32_t cpu;
  switch (step) {
    case STEPS_NOTHING:
      break;
    case STEPS_TICKS:
      hmk_ticks();
      break;
    case STEPS_TICKS_CPU:
      hmk_ticks_cpu(&cpu);
      break;
    case STEPS_SWAP:
      swap_word();
      break;
    case STEPS_FILL:
      return hmk_fill_leg(&to_slot, leg, message);
    case STEPS_START:
      to_slot.busy = 0;
      *word() = HMK_PHASE_REPLY;
      return hmk_start(&to_slot, message);
    case STEPS_ADMIT:
      return hmk_admit(&carrier.context, leg);
    case STEPS_RUN:
      return hmk_run(&pool, &carrier.context);
    case STEPS_PUBLISH:
      hmk_publish(&carrier.context, leg, HMK_OK);
      break;
    case STEPS_SERVE:
      request_again(length);
      serve_call(&carrier, *word());
      break;
    case STEPS_COLLECT:
      return hmk_collect_leg(&to_slot, leg, message);
    case STEPS_COLLECT_ALIASED:
      return collect_aliased(*message);
    case STEPS_FINISH:
      return hmk_finish(&to_slot, message);
    case STEPS_CALL:
      return call_once(message);
    case STEPS_UNWATCHED:
      hmk_publish(&carrier.context, leg, HMK_OK);
      break;
    case STEPS_WATCHED:
      watch();
      hmk_publish(&carrier.context, leg, HMK_OK);
      break;
    case STEPS_CLOCK:
      clock_gettime(CLOCK_MONOTONIC, &now);
      break;
    case STEPS_GATE:
      if (hmk_gate_enter(&carrier)) return 1;
      hmk_gate_inside(&carrier);
      return hmk_gate_outside(&carrier);
    case STEPS_PLACE:
      place_settled();
      break;
    case STEPS_YIELD:
      hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
      break;
    case STEPS_WAKE:
      hmk_wake(word());
      break;
  }
  return HMK_OK;
}

/* One loop for each step: `step` is a constant where this is inlined, so that no loop pays for choosing. */
static inline __attribute__((always_inline)) uint64_t loop(enum steps_step step, uint32_t length, uint32_t count) {
  struct hmk_message message = message_of_length(length);
  int64_t failed = 0;
  uint32_t cpu;
  uint64_t began = hmk_ticks_cpu(&cpu);
  for (uint32_t i = 0; i < count; i++) {
    failed |= step_once(step, length, &message);
    KEEP;
  }
  uint64_t ticks = hmk_ticks_cpu(&cpu) - began;
  return failed ? 0 : ticks;
}

#define CASE(step)                     \
  case step:                           \
    ticks = loop(step, length, count); \
    break;

/* Ticks that `count` runs of one step take. `length`: payload bytes of an echo, at most 1 MiB; 0 is the null call.
 * `observe`: HMK_OBSERVE_*. 0 when a step did not end as it must. */
uint64_t steps_run(uint32_t step, uint32_t length, uint32_t observe, uint32_t count) {
  uint64_t ticks = 0;
  if (length > LARGEST) return 0;
  struct hmk_message message = message_of_length(length);
  if (!intact(&message, observe)) return 0;
  switch (step) {
    CASE(STEPS_NOTHING)
    CASE(STEPS_TICKS)
    CASE(STEPS_TICKS_CPU)
    CASE(STEPS_SWAP)
    CASE(STEPS_FILL)
    CASE(STEPS_START)
    CASE(STEPS_ADMIT)
    CASE(STEPS_RUN)
    CASE(STEPS_PUBLISH)
    CASE(STEPS_SERVE)
    CASE(STEPS_COLLECT)
    CASE(STEPS_COLLECT_ALIASED)
    CASE(STEPS_FINISH)
    CASE(STEPS_CALL)
    CASE(STEPS_UNWATCHED)
    CASE(STEPS_WATCHED)
    CASE(STEPS_CLOCK)
    CASE(STEPS_GATE)
    CASE(STEPS_PLACE)
    CASE(STEPS_YIELD)
    CASE(STEPS_WAKE)
  }
  return intact(&message, observe) ? ticks : 0;
}

/* Ticks that giving the interpreter's lock up and taking it back take, `count` times, with nobody waiting for it; each
 * includes one rdtsc. */
uint64_t steps_lock(uint32_t count, uint64_t *give, uint64_t *take) {
  PyGILState_STATE held = PyGILState_Ensure();
  *give = *take = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t before = hmk_ticks();
    PyThreadState *state = PyEval_SaveThread();
    uint64_t between = hmk_ticks();
    PyEval_RestoreThread(state);
    *take += hmk_ticks() - between;
    *give += between - before;
  }
  PyGILState_Release(held);
  return *give + *take;
}

/* ---- between two processes ---- */

/*
 * `area` is shared: a word, as the state word, and fields beside it in one line; then further lines. Each party writes
 * `fields` fields and one word of each of `lines` lines, then moves the word; the other, waiting in one of four ways,
 * sees it move and reads those lines. Ping makes the word odd, pong even.
 */
static uint32_t await_move(uint32_t *area, uint32_t old, uint32_t how) {
  while (hmk_load(area) == old) {
    if (how == STEPS_PAUSE) hmk_pause();
    if (how == STEPS_YIELDING) hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
    if (how == STEPS_SLEEPING) hmk_syscall(HMK_SYS_FUTEX, (long)area, 0, old, 0);
  }
  return hmk_load(area);
}

static void move(uint32_t *area, uint32_t value, uint32_t how, uint32_t fields, uint32_t lines) {
  for (uint32_t i = 1; i <= fields; i++) HMK_SET(area[i], value);
  for (uint32_t i = 1; i <= lines; i++) HMK_SET(area[16 * i], value);
  hmk_exchange(area, value);
  if (how == STEPS_SLEEPING) hmk_wake(area);
}

static void look(uint32_t *area, uint32_t fields, uint32_t lines) {
  for (uint32_t i = 1; i <= fields; i++) (void)HMK_GET(area[i]);
  for (uint32_t i = 1; i <= lines; i++) (void)HMK_GET(area[16 * i]);
}

/* Answer for ever: whoever started this process ends it. At most 15 fields; the area has 16 words a line. */
void steps_pong(uint32_t *area, uint32_t how, uint32_t fields, uint32_t lines) {
  for (uint32_t seen = 0;;) {
    seen = await_move(area, seen, how);
    look(area, fields, lines);
    move(area, ++seen, how, fields, lines);
  }
}

/* Ticks for `count` round trips; the word of a new area is 0. */
uint64_t steps_ping(uint32_t *area, uint32_t how, uint32_t fields, uint32_t lines, uint32_t count) {
  uint32_t cpu, value = hmk_load(area);
  uint64_t began = hmk_ticks_cpu(&cpu);
  for (uint32_t i = 0; i < count; i++) {
    move(area, ++value, how, fields, lines);
    value = await_move(area, value, how);
    look(area, fields, lines);
  }
  return hmk_ticks_cpu(&cpu) - began;
}

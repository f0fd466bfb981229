/* One call, from the request in a leg to the reply in it; and calls back into a waiting caller (A -> B -> A).
 *
 * A leg is memory that the caller can write at any time: each field is read once, into the context, checked there,
 * and used from there. Who calls is what the binding says; nothing in the frame is believed.
 */
#include "carrier.h"

#include <string.h>

static int32_t saturate(uint64_t ticks) { return ticks > 0x7fffffff ? 0x7fffffff : (int32_t)ticks; }

void hmk_observe(struct hmk_pool *pool, const struct hmk_context *context, uint32_t cpu, uint64_t started,
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
    uint64_t at = atomic_fetch_add_explicit((_Atomic uint64_t *)&pool->shared->trace_head, 1, memory_order_relaxed);
    pool->trace[at % HMK_TRACE_EVENTS] =
        (struct hmk_trace_event){.at = started,
                                 .duration = (uint32_t)saturate(ended - started),
                                 .client = context->client,
                                 .slot = context->owner ? (uint16_t)context->owner->record->slot : 0,
                                 .operation = (uint16_t)context->operation,
                                 .status = (int32_t)status,
                                 .cpu = cpu,
                                 .waited = (uint32_t)saturate(waited)};
  }
}

/* Copy a request once from memory its caller can still write, and check it. */
int64_t hmk_admit(struct hmk_context *context, struct hmk_leg *leg) {
  uint32_t bulk = HMK_GET(leg->flags) & HMK_LEG_BULK;
  uint32_t length = HMK_GET(leg->length);
  context->leg = leg;
  context->operation = HMK_GET(leg->operation);
  context->registers = HMK_GET(leg->registers);
  context->depth = HMK_GET(leg->depth);
  HMK_SET(context->priority, HMK_GET(leg->priority)); /* read by other carriers: higher_class_runs() */
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
  return HMK_OK;
}

void hmk_publish(const struct hmk_context *context, struct hmk_leg *leg, int64_t status) {
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

/* C handlers get a copy of an inline payload (Python ones get bytes). It stands in a frame of its own, so that the
 * stack of a carrier that only waits stays one page shorter. */
static __attribute__((noinline)) int64_t run_on_copy(struct hmk_context *context) {
  char copy[HMK_INLINE];
  memcpy(copy, context->in, context->in_length);
  context->in = copy;
  return hmk_c_handler(context);
}

static int64_t run_c(struct hmk_context *context) {
  return context->in_length && !context->in_bulk ? run_on_copy(context) : hmk_c_handler(context);
}

int64_t hmk_run(struct hmk_pool *pool, struct hmk_context *context) {
  struct hmk_context *outer = current;
  if (context->operation == 0) return HMK_OK; /* the transport's own null call */
  current = context;
  int64_t status = pool->python ? hmk_python_handler(context) : run_c(context);
  current = outer;
  return status;
}

/* ---- chains ---- */

/* Serve a call back into this service on the stack that already waits here. */
static void serve_nested(struct hmk_link *link, struct hmk_leg *leg) {
  struct hmk_pool *pool = link->nested_context;
  struct hmk_context context = {.carrier = link->nested_key, .slot = link->slot};
  int64_t status = hmk_admit(&context, leg);
  if (status == HMK_OK) status = hmk_run(pool, &context);
  hmk_publish(&context, leg, status);
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
                          .manners = &carrier->manners,
                          .peer_cpu = HMK_GET(leg->caller_cpu)};
  enum hmk_wait_end why;
  do {
    why = hmk_wait_phase(&wait);
  } while (why == HMK_WAIT_SIGNAL);
  if (why == HMK_WAIT_COMMAND) return HMK_E_DIED;
  if (HMK_PHASE(wait.state) == HMK_PHASE_CANCELLED) return HMK_E_CANCELLED;
  if (HMK_PHASE(wait.state) != HMK_PHASE_NESTED_REPLY) return HMK_E_BAD_FRAME;
  return hmk_collect_leg(result, &context->slot->leg[1], message);
}

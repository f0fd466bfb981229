/* The C echo service: the dispatcher measured without an interpreter on either side. */
#include "carrier.h"
#include "ops_gen.h"

#include <string.h>

int hmk_pool_set_next(struct hmk_pool *pool, uint32_t carrier, struct hmk_link *next) {
  pool->carriers[carrier].next = next;
  return 0;
}

static int64_t chain(struct hmk_context *context) {
  struct hmk_link *next = context->owner ? context->owner->next : NULL;
  context->returns = 1;
  context->rets[0] = 1;
  if (!next || context->registers < 1 || context->args[0] <= 1) return HMK_OK;
  struct hmk_message message = {.operation = HMK_OP_BENCH_ECHO_CHAIN, .registers = 1, .returns = 1};
  message.args[0] = context->args[0] - 1;
  next->depth = context->depth + 1;
  int64_t status = hmk_call(next, &message);
  context->rets[0] += next->rets[0];
  return status;
}

/* A call may keep a carrier that long, and no longer. */
#define LONGEST_NS 1000000000u

static int64_t work(struct hmk_context *context) {
  uint64_t khz = context->owner->pool->policy->tick_khz;
  uint64_t wanted = context->registers ? context->args[0] : 0;
  uint64_t until = hmk_ticks() + (wanted < LONGEST_NS ? wanted : LONGEST_NS) * khz / 1000000;
  while (hmk_ticks() < until) hmk_pause();
  return HMK_OK;
}

static int64_t echo(struct hmk_context *context) {
  context->returns = 1;
  context->rets[0] = context->in_length;
  return hmk_reply(context, context->in, context->in_length) ? HMK_E_TOO_BIG : HMK_OK;
}

/* Serves the operations of services/interfaces/bench_echo.toml that need no policy. */
int64_t hmk_c_handler(struct hmk_context *context) {
  switch (context->operation) {
    case HMK_OP_BENCH_ECHO_NULL:
      return HMK_OK;
    case HMK_OP_BENCH_ECHO_ECHO:
      return echo(context);
    case HMK_OP_BENCH_ECHO_CHAIN:
      return chain(context);
    case HMK_OP_BENCH_ECHO_WORK:
      return work(context);
    default:
      return HMK_E_BAD_OPERATION;
  }
}

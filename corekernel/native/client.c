/* The client half of a call.
 *
 * No thread-local storage, no globals, no libc: the caller passes its link, the private end of one slot. A link
 * carries one call at a time; code that interrupts a call (a signal handler) sees `busy` and uses another link.
 *
 * A call fills the slot's leg, then moves the state word from ready to REQUEST: the point of no return, after which
 * the service may run the handler. It ends in exactly one of: the reply's status; HMK_E_DIED; a deadline or a
 * cancellation, which leaves the link `abandoned` until the carrier lets go of the slot.
 */
#include "hmk.h"

#define NAP_LEAST_MS 20

enum busy { FREE = 0, CALLING = 1, INTERRUPTED = 2, WAITING = 3, ABANDONED = 4 };

/* `busy` is tested by signal handlers of the same thread only: the compiler must not reorder it, the CPU may. */
static uint32_t get_busy(struct hmk_link *link) {
  return atomic_load_explicit((_Atomic uint32_t *)&link->busy, memory_order_relaxed);
}

static void set_busy(struct hmk_link *link, enum busy busy) {
  atomic_signal_fence(memory_order_seq_cst);
  atomic_store_explicit((_Atomic uint32_t *)&link->busy, busy, memory_order_relaxed);
  atomic_signal_fence(memory_order_seq_cst);
}

static int64_t end(struct hmk_link *link, int64_t status) {
  set_busy(link, FREE);
  return status;
}

/* Whether the link can take a call now; an abandoned one is free again once its carrier has answered. */
int hmk_link_ready(struct hmk_link *link) {
  if (get_busy(link) == ABANDONED) {
    uint32_t phase = HMK_PHASE(hmk_load(&link->slot->leg[0].state));
    if (phase == HMK_PHASE_REPLY || phase == HMK_PHASE_DIED) set_busy(link, FREE);
  }
  return get_busy(link) == FREE;
}

int64_t hmk_fill_leg(struct hmk_link *link, struct hmk_leg *leg, const struct hmk_message *message) {
  uint32_t length = message->in_length;
  uint8_t flags = 0;
  uint32_t cpu;
  if (message->registers > HMK_REGISTERS) return HMK_E_BAD_FRAME;
  if (length > HMK_INLINE) {
    if (length > link->bulk_size) return HMK_E_NO_BUFFER;
    flags = HMK_LEG_BULK;
  }
  for (unsigned i = 0; i < message->registers; i++) HMK_SET(leg->args[i], message->args[i]);
  if (length) hmk_copy(flags ? link->bulk : leg->payload, message->in, length);
  HMK_SET(leg->operation, message->operation);
  HMK_SET(leg->registers, message->registers);
  HMK_SET(leg->flags, flags);
  HMK_SET(leg->length, length);
  HMK_SET(leg->deadline, link->deadline);
  HMK_SET(leg->depth, (uint8_t)link->depth);
  HMK_SET(leg->priority, (uint8_t)link->priority);
  uint64_t now = hmk_ticks_cpu(&cpu);
  HMK_SET(leg->issued, now);
  HMK_SET(leg->caller_cpu, cpu);
  return HMK_OK;
}

/* Tell the poller where to look: after the state word has moved, never before, or it could look in between, find nothing
 * and take the bit away. As it is, a poller that takes the bit away looks afterwards: either it sees this request, or
 * we see that the bit is gone. Pairs with cool_down() in poller.c; both sides write one word, then read the other's, all
 * sequentially consistent. A bit that still stands, as it does for whoever calls again soon, costs no write. */
static void note_ready(struct hmk_link *link) {
  _Atomic uint64_t *word = (_Atomic uint64_t *)link->ready;
  if (!(atomic_load_explicit(word, memory_order_seq_cst) & link->ready_bit))
    atomic_fetch_or_explicit(word, link->ready_bit, memory_order_seq_cst);
}

/* Move the slot to REQUEST. The word may meanwhile gain HMK_SLEEP or HMK_UNBOUND, or die. */
static int64_t submit(struct hmk_link *link, struct hmk_leg *leg) {
  uint32_t state = hmk_load(&leg->state);
  for (;;) {
    if (HMK_PHASE(state) == HMK_PHASE_DIED) return HMK_E_NO_SERVICE;
    if (!(HMK_READY_PHASES & HMK_BIT(HMK_PHASE(state)))) return HMK_E_BAD_FRAME;
    if (state & HMK_UNBOUND) return HMK_E_UNBOUND;
    uint32_t sequence = (HMK_SEQUENCE(state) + 1) & 0xffffff;
    /* point of no return */
    if (hmk_swap(&leg->state, &state, HMK_STATE(sequence, HMK_PHASE_REQUEST))) {
      link->sequence = sequence;
      link->woke = state & HMK_SLEEP;
      if (link->woke) hmk_wake(&leg->state);
      if (link->ready) note_ready(link);
      return HMK_OK;
    }
  }
}

/* The reply stands in the leg: copy once, check, then hand out. */
int64_t hmk_collect_leg(struct hmk_link *link, struct hmk_leg *leg, const struct hmk_message *message) {
  uint32_t length = HMK_GET(leg->reply_length);
  uint32_t bulk = HMK_GET(leg->flags) & HMK_LEG_REPLY_BULK;
  int64_t status = HMK_GET(leg->status);
  if (length > (bulk ? link->bulk_size : HMK_INLINE)) return HMK_E_BAD_FRAME;
  for (unsigned i = 0; i < message->returns && i < HMK_REGISTERS; i++) link->rets[i] = HMK_GET(leg->rets[i]);
  link->reply_length = length;
  link->reply_bulk = bulk;
  if (message->out) {
    if (length > message->out_capacity) return HMK_E_TOO_BIG;
    hmk_copy(message->out, bulk ? link->bulk : leg->payload, length);
  }
  return status;
}

/* Give the call up: the slot stays the carrier's until it answers. Fails when the answer is already there. */
static int abandon(struct hmk_link *link, struct hmk_leg *leg) {
  uint32_t state = hmk_load(&leg->state);
  do {
    uint32_t phase = HMK_PHASE(state);
    if (phase != HMK_PHASE_REQUEST && phase != HMK_PHASE_NESTED && phase != HMK_PHASE_NESTED_REPLY) return 0;
  } while (!hmk_swap(&leg->state, &state, HMK_STATE(HMK_SEQUENCE(state), HMK_PHASE_CANCELLED)));
  if (state & HMK_SLEEP) hmk_wake(&leg->state); /* a carrier that called back into us */
  set_busy(link, ABANDONED);
  return 1;
}

/* Serve the call back into us on the stack that waits here, then go on waiting. */
static void serve_nested(struct hmk_link *link, struct hmk_slot *slot) {
  ((hmk_nested_fn)link->nested)(link, &slot->leg[1]);
  uint32_t cpu;
  hmk_ticks_cpu(&cpu);
  HMK_SET(slot->leg[0].caller_cpu, cpu);
  uint32_t state = hmk_load(&slot->leg[0].state);
  do {
    if (HMK_PHASE(state) != HMK_PHASE_NESTED) return; /* the service died meanwhile, and that is final */
  } while (!hmk_swap(&slot->leg[0].state, &state, HMK_STATE(link->sequence, HMK_PHASE_NESTED_REPLY)));
  if (state & HMK_SLEEP) hmk_wake(&slot->leg[0].state);
}

/* A reply of WAIT is no end: the link stays taken while its condition is waited for. */
static int64_t concluded(struct hmk_link *link, int64_t status) {
  return status == HMK_E_WAIT ? status : end(link, status);
}

static int64_t await(struct hmk_link *link, const struct hmk_message *message, uint32_t sleep_at_once) {
  struct hmk_leg *leg = &link->slot->leg[0];
  struct hmk_wait wait = {.word = &leg->state,
                          .phases = HMK_BIT(HMK_PHASE_REQUEST) | HMK_BIT(HMK_PHASE_NESTED_REPLY),
                          .policy = link->policy,
                          .deadline = link->deadline,
                          .waits = link->waits,
                          .manners = &link->manners,
                          .nap = message->interruptible ? &link->nap : NULL,
                          .sleep_at_once = sleep_at_once,
                          .peer_slept = link->woke};
  for (;;) {
    wait.peer_cpu = HMK_GET(leg->carrier_cpu);
    enum hmk_wait_end why = hmk_wait_phase(&wait);
    if (why == HMK_WAIT_SIGNAL) {
      if (!message->interruptible) continue;
      set_busy(link, INTERRUPTED);
      return HMK_E_INTERRUPTED;
    }
    if (why == HMK_WAIT_DEADLINE) {
      if (abandon(link, leg)) return HMK_E_DEADLINE;
      continue;
    }
    switch (HMK_PHASE(wait.state)) {
      case HMK_PHASE_REPLY:
        return concluded(link, hmk_collect_leg(link, leg, message));
      case HMK_PHASE_DIED:
        return end(link, HMK_E_DIED);
      case HMK_PHASE_NESTED:
        if (link->nested) {
          serve_nested(link, link->slot);
          continue;
        }
        return abandon(link, leg) ? HMK_E_BAD_FRAME : end(link, HMK_E_BAD_FRAME); /* not from this one */
      default: /* a transition that nobody may make */
        return end(link, HMK_E_BAD_FRAME);
    }
  }
}

/* The service answered WAIT: sleep on our own word, holding no stack, until it says that something changed. */
static int64_t await_condition(struct hmk_link *link, const struct hmk_message *message) {
  struct hmk_leg *leg = &link->slot->leg[0];
  for (;;) {
    enum hmk_wait_end why = hmk_wait_word(&leg->wait_word, link->wait_sequence, link->deadline,
                                          message->interruptible ? &link->nap : NULL, link->policy, &leg->state);
    if (why == HMK_WAIT_DONE) return HMK_OK;
    if (why == HMK_WAIT_DEADLINE) return end(link, HMK_E_DEADLINE);
    if (message->interruptible) {
      set_busy(link, WAITING);
      return HMK_E_INTERRUPTED;
    }
  }
}

static int64_t start(struct hmk_link *link, const struct hmk_message *message) {
  struct hmk_leg *leg = &link->slot->leg[0];
  /* A dead slot may still have a carrier that reads it: leave it alone. */
  if (HMK_PHASE(hmk_load(&leg->state)) == HMK_PHASE_DIED) return end(link, HMK_E_NO_SERVICE);
  link->nap = link->policy->tick_khz * NAP_LEAST_MS;
  int64_t status = hmk_fill_leg(link, leg, message);
  if (status == HMK_OK) status = submit(link, leg);
  return status == HMK_OK ? HMK_OK : end(link, status);
}

static int64_t issue(struct hmk_link *link, const struct hmk_message *message) {
  int64_t status = start(link, message);
  return status == HMK_OK ? await(link, message, 0) : status;
}

/* Re-issue for as long as the service answers WAIT and its condition comes true. */
static int64_t settle(struct hmk_link *link, const struct hmk_message *message, int64_t status) {
  while (status == HMK_E_WAIT) {
    set_busy(link, CALLING);
    link->wait_sequence = HMK_GET(link->slot->leg[0].wait_sequence);
    status = await_condition(link, message);
    if (status == HMK_OK) status = issue(link, message);
  }
  return status;
}

/* One call. Returns the service's status (0, or an errno > 0), or HMK_E_* < 0. On HMK_E_INTERRUPTED the call is
 * still in progress: hmk_resume() or hmk_cancel() it. */
int64_t hmk_call(struct hmk_link *link, const struct hmk_message *message) {
  if (!hmk_link_ready(link)) return HMK_E_BUSY;
  set_busy(link, CALLING);
  return settle(link, message, issue(link, message));
}

/* The two halves of hmk_call(), for a caller with something to do in between: after HMK_OK from hmk_start(),
 * hmk_finish() must follow. */
int64_t hmk_start(struct hmk_link *link, const struct hmk_message *message) {
  if (!hmk_link_ready(link)) return HMK_E_BUSY;
  set_busy(link, CALLING);
  return start(link, message);
}

int64_t hmk_finish(struct hmk_link *link, const struct hmk_message *message) {
  return settle(link, message, await(link, message, 0));
}

/* Whether the reply to a started call comes within the time that waiting spins; never sleeps. */
int hmk_reply_soon(struct hmk_link *link) {
  struct hmk_leg *leg = &link->slot->leg[0];
  uint32_t cpu;
  uint64_t now = hmk_ticks_cpu(&cpu);
  if (link->woke || HMK_GET(leg->carrier_cpu) == cpu) return 0;
  for (uint64_t until = now + link->policy->spin; now < until; now = hmk_ticks()) {
    for (int i = 0; i < 16; i++) {
      if (HMK_PHASE(hmk_load(&leg->state)) == HMK_PHASE_REPLY) return 1;
      hmk_pause();
    }
  }
  return 0;
}

/* Go on with an interrupted call; `message` is the one that was interrupted. */
int64_t hmk_resume(struct hmk_link *link, const struct hmk_message *message) {
  uint32_t busy = get_busy(link);
  if (busy != INTERRUPTED && busy != WAITING) return HMK_E_BAD_FRAME;
  set_busy(link, CALLING);
  if (busy == INTERRUPTED) return settle(link, message, await(link, message, 1));
  int64_t status = await_condition(link, message);
  return status == HMK_OK ? settle(link, message, issue(link, message)) : status;
}

/* Give an interrupted call up. A handler that runs, runs on; its reply is dropped. */
int64_t hmk_cancel(struct hmk_link *link) {
  uint32_t busy = get_busy(link);
  if (busy == INTERRUPTED && abandon(link, &link->slot->leg[0])) return HMK_E_CANCELLED;
  if (busy == INTERRUPTED || busy == WAITING) return end(link, HMK_E_CANCELLED);
  return HMK_E_BAD_FRAME;
}

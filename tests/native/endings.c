/* How calls end that do not end with a reply: the core says that the service died, the carrier breaks the protocol, or
 * there is no buffer. One thread plays the carrier, so that each ending comes at the moment that matters; for the last
 * there is a pool of one carrier, and the test is its control thread.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "client_side.h"
#include "no_python.h"

static struct hmk_frames frames;
static struct hmk_slot *const slots = frames.slots;
static struct hmk_wait_policy policy;

int64_t hmk_python_handler(struct hmk_context *context) {
  (void)context;
  return HMK_E_FAULT;
}

static struct hmk_link new_link(void) {
  memset(slots, 0, sizeof *slots);
  return (struct hmk_link){.slot = slots, .policy = &policy, .deadline = hmk_ticks() + 3000 * policy.tick_khz};
}

static int64_t call(struct hmk_link *link) {
  struct hmk_message message = {.operation = OP_NULL};
  return hmk_call(link, &message);
}

/* A carrier that answers one request by moving the slot to `phase`. */
static void *answer_with(void *phase) {
  uint32_t *word = &slots[0].leg[0].state;
  while (HMK_PHASE(hmk_load(word)) != HMK_PHASE_REQUEST) sched_yield();
  uint32_t old = hmk_exchange(word, HMK_STATE(1, (uint32_t)(uintptr_t)phase));
  if (old & HMK_SLEEP) hmk_wake(word);
  return NULL;
}

static int64_t call_answered_with(struct hmk_link *link, uint32_t phase) {
  pthread_t carrier;
  CHECK(pthread_create(&carrier, NULL, answer_with, (void *)(uintptr_t)phase) == 0);
  int64_t status = call(link);
  CHECK(pthread_join(carrier, NULL) == 0);
  return status;
}

static void forbidden_transitions_end_the_call(void) {
  static const uint32_t forbidden[] = {HMK_PHASE_IDLE, HMK_PHASE_NESTED, HMK_PHASE_CANCELLED, 7, 15};
  for (unsigned i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
    struct hmk_link link = new_link();
    CHECK(call_answered_with(&link, forbidden[i]) == HMK_E_BAD_FRAME);
  }
}

static void lies_about_the_reply_are_refused(void) {
  struct hmk_link link = new_link();
  slots[0].leg[0].reply_length = HMK_INLINE + 1;
  CHECK(call_answered_with(&link, HMK_PHASE_REPLY) == HMK_E_BAD_FRAME);
  link = new_link();
  slots[0].leg[0].reply_length = 1;
  slots[0].leg[0].flags = HMK_LEG_REPLY_BULK; /* the caller has no shared buffer; its own flags replace this one */
  CHECK(call_answered_with(&link, HMK_PHASE_REPLY) == HMK_OK && link.reply_bulk == 0);
}

static void *kill_the_slot(void *unused) {
  while (HMK_PHASE(hmk_load(&slots[0].leg[0].state)) != HMK_PHASE_REQUEST) sched_yield();
  hmk_frames_kill(slots, 0);
  return unused;
}

static void death_ends_a_call_in_flight(void) {
  struct hmk_link link = new_link();
  pthread_t core;
  CHECK(pthread_create(&core, NULL, kill_the_slot, NULL) == 0);
  CHECK(call(&link) == HMK_E_DIED);
  CHECK(pthread_join(core, NULL) == 0);
  CHECK(call(&link) == HMK_E_NO_SERVICE);
}

/* The next call must say so, not that the link is busy: the carrier that would let go of the slot is dead. */
static void link_given_up_before_the_death_learns_of_it(void) {
  struct hmk_link link = new_link();
  link.deadline = 1;
  CHECK(call(&link) == HMK_E_DEADLINE);
  CHECK(call(&link) == HMK_E_BUSY);
  hmk_frames_kill(slots, 0);
  CHECK(call(&link) == HMK_E_NO_SERVICE);
}

static void die_while_serving(struct hmk_link *link, struct hmk_leg *leg) {
  CHECK(link->slot == &slots[0] && leg == &slots[0].leg[1]);
  hmk_frames_kill(slots, 0);
}

static void death_during_a_call_back_is_final(void) {
  struct hmk_link link = new_link();
  link.nested = (void *)die_while_serving;
  CHECK(call_answered_with(&link, HMK_PHASE_NESTED) == HMK_E_DIED);
}

static struct hmk_pool *open_pool(void) {
  static _Alignas(4096) uint8_t stack[2 << 20]; /* what the sanitizers ask for */
  char *shared = calloc(1, hmk_pool_shared_size(1, policy.cpus));
  struct hmk_pool *pool = hmk_pool_open((struct hmk_pool_shared *)shared, stack, sizeof stack, 1, &policy, 0, 0);
  CHECK(pool && hmk_pool_grow(pool, 1, 0) == 1);
  return pool;
}

/* Bind the one carrier and take it off again; whether it left by itself after the control thread had last looked. */
static int leaves_unseen(struct hmk_pool *pool) {
  struct hmk_carrier *carrier = &pool->carriers[hmk_pool_take(pool, 0)];
  hmk_pool_bind(pool, carrier->index, 1, &frames, 0, HMK_PRIORITY_NORMAL, 0);
  CHECK(hmk_pool_unbind(pool, carrier->index, 0) == 0);
  while (!atomic_load(&carrier->parked)) sched_yield();
  return !carrier->shelved;
}

static void buffer_of_an_earlier_binding_is_not_the_next_ones(void) {
  static uint8_t bytes[HMK_INLINE + 1];
  struct hmk_link link = new_link();
  struct hmk_pool *pool = open_pool();
  struct hmk_message message = {.operation = OP_ECHO, .in = bytes, .in_length = sizeof bytes};
  while (!leaves_unseen(pool)) continue;
  CHECK(hmk_pool_set_bulk(pool, 0, (char *)bytes, sizeof bytes) == 0);
  CHECK(hmk_pool_parked(pool, 0) && hmk_pool_take(pool, 0) == 0);
  hmk_pool_bind(pool, 0, 2, &frames, 0, HMK_PRIORITY_NORMAL, 0);
  link.bulk = bytes;
  link.bulk_size = sizeof bytes;
  CHECK(hmk_call(&link, &message) == HMK_E_BAD_FRAME);
  hmk_pool_unbind(pool, 0, 1);
  while (!hmk_pool_parked(pool, 0)) sched_yield();
  CHECK(hmk_pool_shrink(pool, 1) == 1);
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  hybrid_policy(&policy, number(argv[1]), (uint32_t)number(argv[2]));
  forbidden_transitions_end_the_call();
  lies_about_the_reply_are_refused();
  death_ends_a_call_in_flight();
  link_given_up_before_the_death_learns_of_it();
  death_during_a_call_back_is_final();
  buffer_of_an_earlier_binding_is_not_the_next_ones();
  return 0;
}

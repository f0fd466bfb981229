/* Both halves of the dispatcher in one process, for the sanitizers.
 *
 * usage: stress carriers|poller ROUNDS
 *
 * Client threads call a front service, whose carriers (or whose poller) call a back service, which calls back. Beside
 * plain calls there are deadlines, signals that interrupt (the call goes on, or is cancelled), WAIT and notify. Meanwhile
 * the control thread takes idle carriers off their slots (the client gets HMK_E_UNBOUND and asks for another), grows and
 * shrinks the pool, replaces buffers, sets bits of the ready bitmap for nothing and opens the doors that WAIT waits for. One more client, the victim, calls a
 * handler that does not return until its carrier has been unbound by force. At the end the core's part: every slot is
 * killed under a call that waits. Each thread draws from a seed of its own; every count is bounded.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "no_python.h"
#include "stress.h"

struct hmk_wait_policy policy;
struct service front, back;
struct client clients[CLIENTS + 1];
atomic_int doors[SLOTS];
atomic_int released, finished, closing;
int polled;
struct desk desk = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static struct hmk_link to_back[LIMIT];
static int carrier_of[SLOTS]; /* -1: none */
static uint64_t taken_back, forced;

static void *shared_memory(size_t bytes) {
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  return at;
}

/* ---- the handlers ---- */

static int64_t waiting(struct hmk_context *context) {
  uint32_t sequence = hmk_sequence(context->slot); /* before the test, so that no opening is missed */
  if (atomic_exchange(&doors[context->slot - front.slots], 0)) return HMK_OK;
  HMK_SET(context->leg->wait_sequence, sequence);
  return HMK_E_WAIT;
}

static int64_t hang(void) {
  while (!atomic_load(&released)) sched_yield();
  return HMK_OK;
}

static int64_t round_trip(struct hmk_context *context) {
  struct hmk_link *next = context->owner->next;
  struct hmk_message message = {.operation = OP_BACK, .returns = 1};
  next->depth = context->depth + 1;
  int64_t status = hmk_call(next, &message);
  context->returns = 1;
  context->rets[0] = next->rets[0];
  return status;
}

static int64_t call_back(struct hmk_context *context) {
  uint8_t in[32], out[32];
  struct hmk_link result = {.policy = &policy};
  struct hmk_message message = {
      .operation = OP_ECHO, .returns = 1, .in = in, .out = out, .in_length = sizeof in, .out_capacity = sizeof out};
  uint64_t seed = context->issued | 1;
  scatter(in, sizeof in, &seed);
  int64_t status = hmk_call_back(context, &message, &result);
  CHECK(status == HMK_OK && echoed(&result, &message));
  context->returns = 1;
  context->rets[0] = context->carrier;
  return status;
}

int64_t hmk_python_handler(struct hmk_context *context) {
  switch (context->operation) {
    case OP_WAITING:
      return waiting(context);
    case OP_HANG:
      return hang();
    case OP_ROUND:
      return round_trip(context);
    case OP_BACK:
      return call_back(context);
    default:
      return hmk_c_handler(context);
  }
}

/* ---- the control thread ---- */

static void make_client(uint32_t slot, uint64_t rounds) {
  struct client *client = &clients[slot];
  *client = (struct client){.slot = slot, .rounds = rounds, .seed = 0x9e3779b97f4a7c15u * (slot + 1)};
  client->in = malloc(BULK);
  client->out = malloc(BULK);
  client->bulk = shared_memory(BULK);
  CHECK(client->in && client->out);
  client->link =
      (struct hmk_link){.slot = &front.slots[slot], .policy = &policy, .bulk = client->bulk, .bulk_size = BULK};
  if (polled) client->link.ready = front.frames->ready, client->link.ready_bit = 1ull << slot;
  CHECK(pthread_create(&client->thread, NULL, slot == VICTIM ? victim_main : client_main, client) == 0);
}

static struct service open_service(uint32_t limit, uint32_t base) {
  struct service service;
  service.shared = shared_memory(hmk_pool_shared_size(limit, CPUS));
  service.frames = shared_memory(sizeof *service.frames);
  service.slots = service.frames->slots;
  service.pool = hmk_pool_open(service.shared, shared_memory((size_t)limit * STACK), STACK, limit, &policy, 1, base);
  CHECK(service.pool);
  HMK_SET(service.shared->observe, HMK_OBSERVE_OPERATIONS | HMK_OBSERVE_TRACE);
  return service;
}

static void bind_back(void) {
  CHECK(hmk_pool_grow(back.pool, LIMIT, 0) == LIMIT);
  for (uint32_t i = 0; i < LIMIT; i++) {
    int carrier = hmk_pool_take(back.pool, 0);
    CHECK(carrier >= 0);
    hmk_pool_bind(back.pool, (uint32_t)carrier, 1, back.frames, i, HMK_PRIORITY_HIGH, 0);
    to_back[i] = (struct hmk_link){.slot = &back.slots[i], .policy = &policy};
    hmk_accept_nested(&to_back[i], front.pool, NESTED_KEY + i);
  }
}

/* A poller that hangs in one client's handler hangs for all: it is released first. */
static void await_parked(int carrier) {
  if (polled) atomic_store(&released, 1);
  while (!hmk_pool_parked(front.pool, (uint32_t)carrier)) sched_yield();
  atomic_store(&released, 0);
}

/* Asked twice: a core that takes an idle stack back may learn the next moment that the client is gone. */
static void take_by_force(uint32_t slot) {
  int carrier = carrier_of[slot];
  hmk_pool_unbind(front.pool, (uint32_t)carrier, 0);
  hmk_pool_unbind(front.pool, (uint32_t)carrier, 1);
  atomic_store(&released, 1);
  hmk_pool_unbind(front.pool, (uint32_t)carrier, 1);
  await_parked(carrier);
  carrier_of[slot] = -1;
  forced++;
}

static int take_carrier(void) {
  int carrier = hmk_pool_take(front.pool, 0);
  if (carrier < 0 && hmk_pool_grow(front.pool, 1, 0)) carrier = hmk_pool_take(front.pool, 0);
  return carrier < 0 ? hmk_pool_take(front.pool, 1) : carrier;
}

static void bind_front(uint32_t slot) {
  if (carrier_of[slot] >= 0) take_by_force(slot);
  int carrier = take_carrier();
  CHECK(carrier >= 0);
  hmk_pool_set_next(front.pool, (uint32_t)carrier, &to_back[carrier]);
  CHECK(hmk_pool_set_bulk(front.pool, (uint32_t)carrier, (char *)clients[slot].bulk, BULK) == 0);
  hmk_pool_bind(front.pool, (uint32_t)carrier, slot + 7, front.frames, slot, HMK_PRIORITY_HIGH, 0);
  carrier_of[slot] = carrier;
}

static void serve_the_desk(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 200000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  pthread_mutex_lock(&desk.lock);
  if (!desk.wanted) pthread_cond_timedwait(&desk.asked, &desk.lock, &until);
  uint64_t wanted = desk.wanted;
  pthread_mutex_unlock(&desk.lock);
  if (!wanted) return;
  for (uint32_t slot = 0; slot <= VICTIM; slot++)
    if (wanted & 1ull << slot) bind_front(slot);
  pthread_mutex_lock(&desk.lock);
  desk.wanted &= ~wanted;
  pthread_cond_broadcast(&desk.done);
  pthread_mutex_unlock(&desk.lock);
}

static void take_back(uint32_t slot) {
  int carrier = carrier_of[slot];
  if (carrier < 0 || hmk_pool_unbind(front.pool, (uint32_t)carrier, 0)) return;
  await_parked(carrier);
  carrier_of[slot] = -1;
  taken_back++;
}

static void open_doors(void) {
  for (uint32_t slot = 0; slot < CLIENTS; slot++) {
    atomic_store(&doors[slot], 1);
    hmk_notify(&front.slots[slot]);
  }
}

static void meddle(uint64_t *seed) {
  struct hmk_pool_totals totals;
  uint64_t choice = draw(seed);
  uint32_t slot = (uint32_t)(choice >> 32) % CLIENTS;
  switch (choice % 7) {
    case 0:
      hmk_pool_grow(front.pool, 2, 0);
      break;
    case 1:
      hmk_pool_shrink(front.pool, 2);
      break;
    case 2:
      if (carrier_of[slot] >= 0)
        hmk_pool_set_bulk(front.pool, (uint32_t)carrier_of[slot], (char *)clients[slot].bulk, BULK);
      break;
    case 3:
      hmk_pool_sum(front.shared, LIMIT, &totals);
      hmk_pool_longest(front.shared, LIMIT);
      break;
    case 4: /* bits without requests, of slots bound or not */
      atomic_fetch_or((_Atomic uint64_t *)front.frames->ready, draw(seed));
      break;
    case 5:
      pthread_kill(clients[slot].thread, SIGUSR1);
      break;
    default:
      take_back(slot);
  }
  open_doors();
}

static int last_calls_wait(void) {
  for (uint32_t slot = 0; slot < CLIENTS; slot++) {
    uint32_t state = hmk_load(&front.slots[UNSERVED + slot].leg[0].state);
    if (slot % 2 && state != (HMK_STATE(1u, HMK_PHASE_REQUEST) | HMK_SLEEP)) return 0;
    if (slot % 2 == 0 && !(hmk_load(&front.slots[slot].leg[0].wait_word) & 1)) return 0;
  }
  return 1;
}

static void kill_every_slot(void) {
  atomic_store(&closing, 1);
  while (!last_calls_wait()) serve_the_desk();
  for (uint32_t slot = 0; slot < SLOTS; slot++) hmk_frames_kill(front.slots, slot);
  for (uint32_t slot = 0; slot < CLIENTS; slot++) CHECK(pthread_join(clients[slot].thread, NULL) == 0);
}

static void pool_is_whole_again(void) {
  for (uint32_t slot = 0; slot < SLOTS; slot++)
    if (carrier_of[slot] >= 0) take_by_force(slot);
  CHECK(front.shared->bound == 0 && front.shared->reserved == RESERVED);
  CHECK(hmk_pool_grow(front.pool, LIMIT, 0) + (int)front.shared->free >= LIMIT - RESERVED);
  CHECK(hmk_pool_shrink(front.pool, LIMIT) == LIMIT - RESERVED);
  CHECK(front.shared->free == 0);
}

static void on_signal(int number) { (void)number; }

int main(int argc, char **argv) {
  CHECK(argc == 3);
  struct sigaction action = {.sa_handler = on_signal};
  uint64_t seed = 0x2545f4914f6cdd1d;
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  hmk_policy_defaults(&policy, hmk_measure_tick_khz(), CPUS, 0);
  for (uint32_t slot = 0; slot < SLOTS; slot++) carrier_of[slot] = -1;
  front = open_service(LIMIT, 0);
  back = open_service(LIMIT, BACK_BASE);
  polled = !strcmp(argv[1], "poller");
  if (polled) CHECK(hmk_pool_poll(front.pool, 1) == 0);
  CHECK(hmk_pool_grow(front.pool, RESERVED, 1) == RESERVED);
  bind_back();
  for (uint32_t slot = 0; slot <= VICTIM; slot++) make_client(slot, number(argv[2]));
  while (atomic_load(&finished) <= CLIENTS) {
    serve_the_desk();
    meddle(&seed);
  }
  CHECK(pthread_join(clients[VICTIM].thread, NULL) == 0);
  kill_every_slot();
  pool_is_whole_again();
  struct client sum = {0};
  for (int i = 0; i < CLIENTS; i++) {
    sum.unbound += clients[i].unbound, sum.waited += clients[i].waited, sum.late += clients[i].late;
    sum.cancelled += clients[i].cancelled, sum.resumed += clients[i].resumed;
  }
  printf(
      "{\"unbound\": %lu, \"waited\": %lu, \"late\": %lu, \"cancelled\": %lu, \"resumed\": %lu, \"taken\": %lu, "
      "\"forced\": %lu, \"promised\": %u}\n",
      sum.unbound, sum.waited, sum.late, sum.cancelled, sum.resumed, taken_back, forced, HANGS);
  return 0;
}

/* Both halves of the dispatcher in one process, for the sanitizers.
 *
 * usage: stress carriers|poller ROUNDS
 *
 * Client threads call a front service, whose carriers (or whose poller) call a back service, which calls back. Beside
 * plain calls there are deadlines, signals that interrupt (the call goes on, or is cancelled), WAIT and notify. Meanwhile
 * the control thread takes idle carriers off their slots (the client gets HMK_E_UNBOUND and asks for another), grows and
 * shrinks the pool, replaces buffers and opens the doors that WAIT waits for. One more client, the victim, calls a
 * handler that does not return until its carrier has been unbound by force. At the end the core's part: every slot is
 * killed under a call that waits. Each thread draws from a seed of its own; every count is bounded.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "carrier.h"
#include "client_side.h"

enum {
  OP_WAITING = 40, /* WAIT until the door of the caller's slot is open; goes through and shuts it */
  OP_HANG = 41,    /* until released */
  OP_ROUND = 42,   /* front: call OP_BACK of the back service */
  OP_BACK = 43     /* back: call OP_ECHO of the front service, on the stack that waits there */
};

enum {
  CLIENTS = 4,
  VICTIM = CLIENTS,
  SLOTS = 64,
  UNSERVED = 32,  /* slots from here on are never bound */
  FORSAKEN = 63,  /* a slot whose call was given up before it was killed */
  LIMIT = 8,      /* carriers of the front service */
  RESERVED = 1,
  STACK = 256 << 10,
  BULK = 64 << 10,
  CPUS = 2,
  BACK_BASE = 1000,
  NESTED_KEY = 5000,
  HANGS = 20
};

struct service {
  struct hmk_pool_shared *shared;
  struct hmk_pool *pool;
  struct hmk_slot *slots;
};

struct client {
  pthread_t thread;
  uint32_t slot;
  uint64_t seed, rounds;
  struct hmk_link link;
  uint8_t *in, *out, *bulk;
  uint64_t unbound, waited, late, cancelled, resumed;
};

static struct hmk_wait_policy policy;
static struct service front, back;
static struct client clients[CLIENTS + 1];
static struct hmk_link to_back[LIMIT];
static atomic_int doors[SLOTS];
static atomic_int released, finished, closing;
static int carrier_of[SLOTS]; /* control thread only */
static uint64_t taken_back, forced;

/* What clients ask of the control thread. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t asked, done;
  uint64_t wanted; /* a bit per slot */
} desk = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

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
  struct hmk_message message = {.operation = OP_ECHO, .returns = 1, .in = in, .out = out, .in_length = sizeof in,
                                .out_capacity = sizeof out};
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

/* ---- the clients ---- */

static void ask_for_a_carrier(struct client *client) {
  uint64_t bit = 1ull << client->slot;
  pthread_mutex_lock(&desk.lock);
  desk.wanted |= bit;
  pthread_cond_signal(&desk.asked);
  while (desk.wanted & bit) pthread_cond_wait(&desk.done, &desk.lock);
  pthread_mutex_unlock(&desk.lock);
}

/* A call, brought to an end whatever happens to it: HMK_OK, HMK_E_DEADLINE, HMK_E_CANCELLED, or it died. */
static int64_t settled(struct client *client, struct hmk_message *message) {
  struct hmk_link *link = &client->link;
  int64_t status = hmk_call(link, message);
  for (;;) {
    if (status == HMK_E_UNBOUND) {
      client->unbound++;
      ask_for_a_carrier(client);
      status = hmk_call(link, message);
    } else if (status == HMK_E_INTERRUPTED && draw(&client->seed) % 4) {
      client->resumed++;
      status = hmk_resume(link, message);
    } else if (status == HMK_E_INTERRUPTED) {
      client->cancelled++;
      status = hmk_cancel(link);
      CHECK(status == HMK_E_CANCELLED);
    } else {
      break;
    }
  }
  if (status == HMK_E_DEADLINE) client->late++;
  if (status == HMK_E_DEADLINE || status == HMK_E_CANCELLED) await_ready(link);
  return status;
}

static int given_up(int64_t status) { return status == HMK_E_DEADLINE || status == HMK_E_CANCELLED; }

static void echo(struct client *client, uint32_t most) {
  struct hmk_message message = {.operation = OP_ECHO, .returns = 1, .in = client->in, .out = client->out,
                                .out_capacity = BULK, .interruptible = 1};
  message.in_length = (uint32_t)(draw(&client->seed) % (most + 1));
  scatter(client->in, message.in_length, &client->seed);
  int64_t status = settled(client, &message);
  CHECK(given_up(status) || (status == HMK_OK && echoed(&client->link, &message)));
}

static uint64_t simple(struct client *client, uint16_t operation, uint64_t argument) {
  struct hmk_message message = {.operation = operation, .registers = 1, .returns = 1, .interruptible = 1};
  message.args[0] = argument;
  int64_t status = settled(client, &message);
  CHECK(status == HMK_OK || given_up(status));
  return status == HMK_OK ? client->link.rets[0] : 0;
}

static void one_round(struct client *client) {
  uint64_t choice = draw(&client->seed), got;
  client->link.deadline = choice % 5 ? 0 : hmk_ticks() + (choice >> 8) % 200 * policy.tick_khz / 1000 + 1;
  switch ((choice >> 32) % 16) {
    case 0:
      simple(client, OP_WAITING, 0);
      client->waited++;
      break;
    case 1:
    case 2:
      got = simple(client, OP_ROUND, 0);
      CHECK(got == 0 || (got >= BACK_BASE && got < BACK_BASE + LIMIT));
      break;
    case 3:
    case 4:
      got = simple(client, OP_CHAIN, 2);
      CHECK(got == 0 || got == 2);
      break;
    case 5:
      echo(client, BULK);
      break;
    case 6:
      simple(client, OP_WORK, 150000);
      break;
    case 7:
    case 8:
    case 9:
      simple(client, OP_NULL, 0);
      break;
    default:
      echo(client, 256);
  }
}

/* Every slot is killed in the end, under a call that waits: the even clients' wait for a door, the odd ones' for a
 * carrier that was never bound. */
static void last_call(struct client *client) {
  struct hmk_link *link = &client->link;
  struct hmk_message message = {.operation = client->slot % 2 ? OP_NULL : OP_WAITING};
  int64_t status;
  link->deadline = 0;
  if (client->slot % 2) link->slot = &front.slots[UNSERVED + client->slot];
  do status = settled(client, &message);
  while (status == HMK_OK); /* a door that was still open */
  CHECK(status == (client->slot % 2 ? HMK_E_DIED : HMK_E_NO_SERVICE));
  CHECK(hmk_call(link, &message) == HMK_E_NO_SERVICE);
}

static void *client_main(void *argument) {
  struct client *client = argument;
  ask_for_a_carrier(client);
  for (uint64_t i = 0; i < client->rounds; i++) one_round(client);
  atomic_fetch_add(&finished, 1);
  while (!atomic_load(&closing)) sched_yield();
  last_call(client);
  return NULL;
}

/* Its calls hang; having given up, it asks for another carrier, and the control thread takes the hanging one by force. */
static void *victim_main(void *argument) {
  struct client *client = argument;
  struct hmk_message message = {.operation = OP_HANG};
  for (int i = 0; i < HANGS; i++) {
    ask_for_a_carrier(client);
    client->link.deadline = hmk_ticks() + (uint64_t)(i % 3) * policy.tick_khz + 1;
    int64_t status = hmk_call(&client->link, &message);
    CHECK(status == HMK_E_DEADLINE);
  }
  ask_for_a_carrier(client);
  await_ready(&client->link);
  client->link.deadline = 0;
  message.operation = OP_NULL;
  CHECK(hmk_call(&client->link, &message) == HMK_OK);
  atomic_fetch_add(&finished, 1);
  return NULL;
}

static void make_client(uint32_t slot, uint64_t rounds) {
  struct client *client = &clients[slot];
  *client = (struct client){.slot = slot, .rounds = rounds, .seed = 0x9e3779b97f4a7c15u * (slot + 1)};
  client->in = malloc(BULK);
  client->out = malloc(BULK);
  client->bulk = shared_memory(BULK);
  CHECK(client->in && client->out);
  client->link = (struct hmk_link){.slot = &front.slots[slot], .policy = &policy, .bulk = client->bulk, .bulk_size = BULK};
  CHECK(pthread_create(&client->thread, NULL, slot == VICTIM ? victim_main : client_main, client) == 0);
}

/* ---- the control thread ---- */

static struct service open_service(uint32_t limit, uint32_t base) {
  struct service service;
  service.shared = shared_memory(hmk_pool_shared_size(limit, CPUS));
  service.slots = shared_memory(SLOTS * sizeof(struct hmk_slot));
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
    hmk_pool_bind(back.pool, (uint32_t)carrier, 1, i, &back.slots[i]);
    to_back[i] = (struct hmk_link){.slot = &back.slots[i], .policy = &policy};
    hmk_accept_nested(&to_back[i], front.pool, NESTED_KEY + i);
  }
}

static void await_parked(int carrier) {
  while (!hmk_pool_parked(front.pool, (uint32_t)carrier)) sched_yield();
}

/* Asked twice: a core that takes an idle stack back may learn the next moment that the client is gone. */
static void take_by_force(uint32_t slot) {
  int carrier = carrier_of[slot];
  hmk_pool_unbind(front.pool, (uint32_t)carrier, 0);
  hmk_pool_unbind(front.pool, (uint32_t)carrier, 1);
  atomic_store(&released, 1);
  hmk_pool_unbind(front.pool, (uint32_t)carrier, 1);
  await_parked(carrier);
  atomic_store(&released, 0);
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
  hmk_pool_bind(front.pool, (uint32_t)carrier, slot + 7, slot, &front.slots[slot]);
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
  switch (choice % 6) {
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
    case 4:
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

/* A call was given up, then the service died: the next one must say so, not that the link is busy. */
static void forsaken_link_learns_of_the_death(void) {
  struct hmk_link link = {.slot = &front.slots[FORSAKEN], .policy = &policy, .deadline = 1};
  struct hmk_message message = {.operation = OP_NULL};
  CHECK(hmk_call(&link, &message) == HMK_E_DEADLINE);
  CHECK(hmk_call(&link, &message) == HMK_E_BUSY);
  hmk_frames_kill(front.slots, FORSAKEN);
  CHECK(hmk_call(&link, &message) == HMK_E_NO_SERVICE);
}

static void pool_is_whole_again(void) {
  for (uint32_t slot = 0; slot < SLOTS; slot++)
    if (carrier_of[slot] >= 0) take_by_force(slot);
  CHECK(front.shared->bound == 0 && front.shared->reserved == RESERVED);
  CHECK(front.shared->created - front.shared->free - RESERVED < 1000000);
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
  if (!strcmp(argv[1], "poller")) CHECK(hmk_pool_poll(front.pool, 1) == 0);
  CHECK(hmk_pool_grow(front.pool, RESERVED, 1) == RESERVED);
  bind_back();
  for (uint32_t slot = 0; slot <= VICTIM; slot++) make_client(slot, number(argv[2]));
  while (atomic_load(&finished) <= CLIENTS) {
    serve_the_desk();
    meddle(&seed);
  }
  CHECK(pthread_join(clients[VICTIM].thread, NULL) == 0);
  kill_every_slot();
  forsaken_link_learns_of_the_death();
  pool_is_whole_again();
  struct client sum = {0};
  for (int i = 0; i < CLIENTS; i++) {
    sum.unbound += clients[i].unbound, sum.waited += clients[i].waited, sum.late += clients[i].late;
    sum.cancelled += clients[i].cancelled, sum.resumed += clients[i].resumed;
  }
  printf("{\"unbound\": %lu, \"waited\": %lu, \"late\": %lu, \"cancelled\": %lu, \"resumed\": %lu, \"taken\": %lu, "
         "\"forced\": %lu, \"promised\": %u}\n",
         sum.unbound, sum.waited, sum.late, sum.cancelled, sum.resumed, taken_back, forced, HANGS);
  return 0;
}

/* The clients of the stress test; see stress.c. Each draws what to call from a seed of its own. */
#define _GNU_SOURCE
#include <sched.h>

#include "stress.h"

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
  struct hmk_message message = {.operation = OP_ECHO,
                                .returns = 1,
                                .in = client->in,
                                .out = client->out,
                                .out_capacity = BULK,
                                .interruptible = 1};
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
  client->link.priority = (choice >> 40) % 3;
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

void *client_main(void *argument) {
  struct client *client = argument;
  ask_for_a_carrier(client);
  for (uint64_t i = 0; i < client->rounds; i++) one_round(client);
  atomic_fetch_add(&finished, 1);
  while (!atomic_load(&closing)) sched_yield();
  last_call(client);
  return NULL;
}

/* Its calls hang; having given up, it asks for another carrier, and the control thread takes the hanging one by force. */
void *victim_main(void *argument) {
  struct client *client = argument;
  struct hmk_message message = {.operation = OP_HANG};
  for (int i = 0; i < HANGS; i++) {
    ask_for_a_carrier(client);
    client->link.deadline = hmk_ticks() + (uint64_t)(i % 3) * policy.tick_khz + 1;
    int64_t status = hmk_call(&client->link, &message);
    CHECK(status == HMK_E_DEADLINE || (polled && status == HMK_OK));
  }
  ask_for_a_carrier(client);
  await_ready(&client->link);
  client->link.deadline = 0;
  message.operation = OP_NULL;
  CHECK(hmk_call(&client->link, &message) == HMK_OK);
  atomic_fetch_add(&finished, 1);
  return NULL;
}

/* What the clients and the control thread of the stress test share. */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>

#include "carrier.h"
#include "client_side.h"

enum {
  OP_WAITING = 40, /* WAIT until the door of the caller's slot is open; goes through and shuts it */
  OP_HANG = 41, /* until released */
  OP_ROUND = 42, /* front: call OP_BACK of the back service */
  OP_BACK = 43 /* back: call OP_ECHO of the front service, on the stack that waits there */
};

enum {
  CLIENTS = 4,
  VICTIM = CLIENTS,
  SLOTS = 64,
  UNSERVED = 32, /* slots from here on are never bound */
  LIMIT = 8, /* carriers of the front service */
  RESERVED = 1,
  STACK = 2 << 20, /* what the sanitizers ask for */
  BULK = 64 << 10,
  CPUS = 2,
  BACK_BASE = 1000,
  NESTED_KEY = 5000,
  HANGS = 20
};

struct service {
  struct hmk_pool_shared *shared;
  struct hmk_pool *pool;
  struct hmk_frames *frames;
  struct hmk_slot *slots; /* of the frames */
};

struct client {
  pthread_t thread;
  uint32_t slot;
  uint64_t seed, rounds;
  struct hmk_link link;
  uint8_t *in, *out, *bulk;
  uint64_t unbound, waited, late, cancelled, resumed;
};

extern struct hmk_wait_policy policy;
extern struct service front, back;
extern struct client clients[CLIENTS + 1];
extern atomic_int doors[SLOTS];
extern atomic_int released, finished, closing;
extern int polled;

/* What clients ask of the control thread. */
struct desk {
  pthread_mutex_t lock;
  pthread_cond_t asked, done;
  uint64_t wanted; /* a bit per slot */
};
extern struct desk desk;

void *client_main(void *client);
void *victim_main(void *client);

#endif

/* Carriers at the gate, for the sanitizers: gate.c with a mutex in the role of the interpreter's lock.
 *
 * usage: in_line calm|disturbed TICK_KHZ CPUS ROUNDS
 *
 * First, with certainty: while the main program has the lock, carriers join the line one by one, and all but the first
 * fall asleep. Then they must get in in that order. After that each goes its rounds as its seed has it: plain calls and
 * some of the high class; handlers that call out and come back, that let go of the lock and take it again by themselves,
 * or that hold it until somebody in line sleeps. Disturbed, signals end sleeps all the while; calm, nothing but its turn
 * wakes a sleeper in line. What the lock protects, and what only the first in line may touch, are plain variables:
 * ThreadSanitizer sees whether the two exclude.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "carrier.h"
#include "client_side.h"

enum { CARRIERS = 6, ASLEEP = 2 /* TURN_ASLEEP of gate.c */, LOOKS = 64 };

static struct hmk_wait_policy policy;
static struct hmk_carrier carriers[CARRIERS];
static struct hmk_pool pool = {.policy = &policy, .carriers = carriers};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t rounds;
static atomic_uint finished;

/* by the lock */
static const struct hmk_carrier *has_lock;
static uint32_t arrived[CARRIERS], arrivals;
static uint64_t calls, called_out, let_go, found_asleep, lined_up, passed;
/* by the gate alone */
static uint64_t firsts;

static int asleep(const struct hmk_carrier *carrier) { return HMK_GET(carrier->turn) == ASLEEP; }

/* ---- what python.c does ---- */

static void take(struct hmk_carrier *carrier) {
  CHECK(pthread_mutex_lock(&lock) == 0);
  CHECK(!has_lock);
  has_lock = carrier;
}

static void give(struct hmk_carrier *carrier) {
  CHECK(has_lock == carrier);
  has_lock = NULL;
  CHECK(pthread_mutex_unlock(&lock) == 0);
}

static void enter(struct hmk_carrier *carrier, int high) {
  int in_line = !high && hmk_gate_enter(carrier);
  if (in_line) firsts++;
  take(carrier);
  hmk_gate_inside(carrier);
  lined_up += (uint64_t)in_line;
  passed += (uint64_t)(!in_line && !high);
  if (in_line) hmk_gate_leave(carrier);
}

static void leave_lock(struct hmk_carrier *carrier) {
  int awaited = hmk_gate_outside(carrier);
  give(carrier);
  if (awaited) hmk_wake(&pool.inside);
}

/* ---- rounds ---- */

/* Nobody gets in meanwhile, so whoever joins behind the first falls asleep; but perhaps nobody comes. */
static void hold_until_one_sleeps(void) {
  for (int looks = 0; looks < LOOKS; looks++, sched_yield())
    for (int i = 0; i < CARRIERS; i++)
      if (asleep(&carriers[i])) {
        found_asleep++;
        return;
      }
}

static void handle(struct hmk_carrier *carrier, uint64_t choice, int high) {
  calls++;
  switch (choice % 16) {
    case 0:
      called_out++;
      leave_lock(carrier);
      sched_yield();
      enter(carrier, high);
      break;
    case 1:
      let_go++;
      give(carrier);
      sched_yield();
      take(carrier);
      break;
    case 2:
      hold_until_one_sleeps();
      break;
    default:
      break;
  }
}

static void *carrier_main(void *argument) {
  struct hmk_carrier *carrier = argument;
  uint64_t seed = 0x9e3779b97f4a7c15u * (carrier->index + 1);
  enter(carrier, 0);
  arrived[arrivals++] = carrier->index;
  leave_lock(carrier);
  for (uint64_t i = 0; i < rounds; i++) {
    uint64_t choice = draw(&seed) >> 16;
    int high = choice % 32 == 5;
    enter(carrier, high);
    handle(carrier, choice >> 8, high);
    leave_lock(carrier);
  }
  atomic_fetch_add(&finished, 1);
  return NULL;
}

/* ---- the main program ---- */

static void start_one_by_one(pthread_t *threads) {
  for (uint32_t i = 0; i < CARRIERS; i++) {
    carriers[i].pool = &pool;
    carriers[i].index = i;
    carriers[i].cpu = i % policy.cpus;
    CHECK(pthread_create(&threads[i], NULL, carrier_main, &carriers[i]) == 0);
    while (atomic_load(&pool.last) != &carriers[i]) sched_yield();
    while (i > 0 && !asleep(&carriers[i])) sched_yield();
  }
}

static void disturb(const pthread_t *threads) {
  uint64_t seed = 88172645463325252;
  while (atomic_load(&finished) < CARRIERS) {
    pthread_kill(threads[draw(&seed) % CARRIERS], SIGUSR1);
    sched_yield();
  }
}

static void on_signal(int signal) { (void)signal; }

int main(int argc, char **argv) {
  static struct hmk_carrier self = {.pool = &pool, .cpu = 1};
  pthread_t threads[CARRIERS];
  struct sigaction action = {.sa_handler = on_signal};
  CHECK(argc == 5);
  hybrid_policy(&policy, number(argv[2]), (uint32_t)number(argv[3]));
  rounds = number(argv[4]);
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  enter(&self, 1);
  start_one_by_one(threads);
  leave_lock(&self);
  if (!strcmp(argv[1], "disturbed")) disturb(threads);
  for (int i = 0; i < CARRIERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (uint32_t i = 0; i < CARRIERS; i++) CHECK(arrived[i] == i);
  CHECK(calls == CARRIERS * rounds && firsts == lined_up);
  CHECK(!hmk_gate_taken(&pool) && !pool.inside && !pool.first_since);
  printf("{\"lined_up\": %lu, \"passed\": %lu, \"called_out\": %lu, \"let_go\": %lu, \"found_asleep\": %lu}\n",
         lined_up, passed, called_out, let_go, found_asleep);
  return 0;
}

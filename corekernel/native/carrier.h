/* The service half's private state. */
#ifndef HMK_CARRIER_H
#define HMK_CARRIER_H

#include <pthread.h>

#include "hmk.h"

struct hmk_pool;
struct hmk_carrier;
#include "carrier.cdef.h"

/* PARKED is what a carrier that obeyed PARK puts there itself: so an order that is revoked before the carrier has
 * looked (bound, and at once unbound) is obeyed all the same, and a carrier that is taken is not taken for idle. */
enum hmk_command { COMMAND_RUN = 0, COMMAND_PARK = 1, COMMAND_LEAVE = 2, COMMAND_PARKED = 3 };

/* After so many long pauses in a row a carrier takes its caller for one that calls seldom. */
#define HMK_LONG_PAUSES 2

struct hmk_bulk {
  char *at;
  uint32_t size;
};

struct hmk_carrier {
  struct hmk_pool *pool;
  struct hmk_carrier_record *record;
  uint32_t index;
  uint32_t alive;
  pthread_t thread;
  /* written by the control thread, obeyed by the carrier */
  uint32_t command;
  uint64_t kicked; /* time stamp of the last kick; the control thread's own */
  uint32_t look; /* at the slot, whatever the ready bitmap says; the poller obeys */
  struct hmk_slot *slot; /* set while parked */
  uint64_t *ready; /* set while parked: the word of the ready bitmap that its slot has a bit in */
  uint32_t place; /* set while parked: the number of that bit */
  uint32_t max_priority; /* set while parked */
  uint32_t shelved; /* in a list of the pool */
  _Atomic(struct hmk_bulk *) bulk;
  /* the carrier's own */
  _Atomic int parked;
  uint32_t was_bound;
  uint32_t watched; /* by the poller, which alone uses this */
  uint32_t reserved;
  uint32_t sequence;
  struct hmk_manners manners;
  uint32_t cpu; /* of the last call */
  uint32_t caller_cpu; /* of the last call */
  uint64_t replied; /* time stamp of the last reply */
  uint32_t pauses; /* long ones between a reply and the next request, in a row */
  void *python_state;
  void *python_key;
  struct hmk_context context;
  struct hmk_link *next; /* C services only: the way to the next service of a chain */
  struct hmk_carrier *next_free; /* pool->lock */
  /* where it runs: placement.c */
  uint32_t epoch; /* of the core's last order that it obeyed */
  uint32_t together; /* calls in a row on the caller's CPU */
  uint32_t apart; /* calls in a row on another CPU */
  uint32_t trial; /* calls left of a trial on another CPU */
  uint64_t met_at;
  uint64_t before; /* ticks that the calls before the trial took */
  uint64_t no_trial_until;
  uint64_t trial_pause;
  uint64_t usual_duration; /* of its handlers, ticks */
  uint32_t follows; /* bound to one CPU by following its caller */
  /* at the gate: gate.c */
  uint32_t turn; /* TURN_* */
  _Atomic(struct hmk_carrier *) behind; /* who comes next */
};

/* The bound slots among those that share a word of a client's ready bitmap. The poller's own. */
struct hmk_watch {
  uint64_t *ready; /* the word: shared with the client, which may write it at any time */
  uint64_t bound; /* the slots, as bits */
  uint64_t warm; /* those that had a request since the last sweep */
  struct hmk_carrier *carriers[64];
};

struct hmk_pool {
  struct hmk_pool_shared *shared;
  struct hmk_carrier_record *records;
  struct hmk_operation_record *operations;
  struct hmk_trace_event *trace;
  uint8_t *stacks;
  uint64_t stack_bytes;
  uint32_t limit;
  int python;
  uint32_t base; /* added to a carrier's index to give its key */
  uint32_t high; /* calls of the high class being served */
  /* the poller: poller.c */
  int polled;
  uint32_t poll_cpu;
  uint32_t orders; /* bumped by the control thread after each order to a carrier */
  uint32_t watching; /* watches in use */
  uint64_t leave_at; /* time stamp: until then it keeps the interpreter's lock; 0 it does not have it */
  uint32_t in_a_row; /* calls since it took the lock */
  struct hmk_watch *watches; /* `limit` of them: each has at least one carrier */
  struct hmk_wait_policy *policy;
  struct hmk_carrier *carriers;
  pthread_mutex_t lock; /* free_list, reserve_list and the shared counters free, bound, peak */
  struct hmk_carrier *free_list;
  struct hmk_carrier *reserve_list;
  /* a crowd: placement.c */
  struct hmk_carrier *served_by; /* the last call, by this carrier ... */
  uint64_t served_at; /* ... at this time */
  uint64_t crowded_until;
  /* the gate: gate.c */
  _Atomic(struct hmk_carrier *) last; /* in line; NULL nobody */
  uint64_t first_since; /* the first in line has waited since then; 0 nobody has */
  uint32_t inside; /* 1 + the CPU of who has the interpreter's lock, or is about to, as far as is known; 0 nobody */
};

void hmk_observe(struct hmk_pool *pool, const struct hmk_context *context, uint32_t cpu, uint64_t started,
                 uint64_t ended, int64_t status);
int64_t hmk_admit(struct hmk_context *context, struct hmk_leg *leg);
int64_t hmk_run(struct hmk_pool *pool, struct hmk_context *context);
void hmk_publish(const struct hmk_context *context, struct hmk_leg *leg, int64_t status);
void hmk_set_affinity(uint32_t cpu, uint32_t cpus);
void hmk_look_for_crowd(struct hmk_carrier *carrier, uint64_t issued, uint64_t started);
void hmk_find_place(struct hmk_carrier *carrier);
int hmk_answer(struct hmk_carrier *carrier, uint32_t state);
void hmk_park(struct hmk_carrier *carrier);
void *hmk_carrier_main(void *argument);
void *hmk_poller_main(void *argument);
void hmk_poller_leave(struct hmk_carrier *carrier);

int hmk_gate_taken(struct hmk_pool *pool);
int hmk_gate_enter(struct hmk_carrier *carrier);
void hmk_gate_inside(struct hmk_carrier *carrier);
int hmk_gate_outside(struct hmk_carrier *carrier);
void hmk_gate_leave(struct hmk_carrier *carrier);

void hmk_python_begin(struct hmk_carrier *carrier);
void hmk_python_end(struct hmk_carrier *carrier);
void hmk_python_enter(struct hmk_carrier *carrier, int in_line);
void hmk_python_leave(struct hmk_carrier *carrier);
int64_t hmk_python_handler(struct hmk_context *context);
int64_t hmk_c_handler(struct hmk_context *context);

#endif

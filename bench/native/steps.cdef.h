/* What bench/steps/loops.py sees of steps.c. Read by the C compiler and by ffi.cdef(): plain declarations only. */

enum steps_step {
  STEPS_NOTHING, /* the loop itself, to be subtracted from the others */
  STEPS_TICKS, /* rdtsc */
  STEPS_TICKS_CPU, /* rdtscp */
  STEPS_SWAP, /* load the state word, compare-and-swap it */
  STEPS_FILL, /* hmk_fill_leg() */
  STEPS_START, /* hmk_start(): readiness, fill, submit */
  STEPS_ADMIT, /* hmk_admit() */
  STEPS_RUN, /* hmk_run(): the C echo service's handler */
  STEPS_PUBLISH, /* hmk_publish() */
  STEPS_SERVE, /* serve_call() of carrier.c: all that a carrier does between noticing a request and waiting again */
  STEPS_COLLECT, /* hmk_collect_leg() */
  STEPS_COLLECT_ALIASED, /* the same, to a buffer 16 bytes ahead of the reply's modulo 4096 */
  STEPS_FINISH, /* hmk_finish() with the reply already there */
  STEPS_CALL, /* start, serve, finish, in one thread */
  STEPS_UNWATCHED, /* what follows the test of the `observe` word, without it: hmk_publish() */
  STEPS_WATCHED, /* the same, after the test */
  STEPS_CLOCK, /* clock_gettime(), which the measuring loops read */
  STEPS_GATE, /* hmk_gate_enter() with nobody in line: past it */
  STEPS_PLACE, /* hmk_find_place() of a free carrier that has settled on another CPU than its caller */
  STEPS_YIELD, /* sched_yield() with nobody to yield to */
  STEPS_WAKE /* FUTEX_WAKE of a word on which nobody sleeps */
};

enum steps_wait { STEPS_SPIN, STEPS_PAUSE, STEPS_YIELDING, STEPS_SLEEPING };

uint64_t steps_run(uint32_t step, uint32_t length, uint32_t observe, uint32_t count);
uint64_t steps_lock(uint32_t count, uint64_t *give, uint64_t *take);
void steps_pong(uint32_t *area, uint32_t how, uint32_t fields, uint32_t lines);
uint64_t steps_ping(uint32_t *area, uint32_t how, uint32_t fields, uint32_t lines, uint32_t count);

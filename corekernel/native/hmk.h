/* What both halves of the dispatcher use: atomics on shared words, time, and the four host calls of the wait path.
 *
 * Nothing here needs libc: the client half is embedded in unmodified programs. General registers only.
 */
#ifndef HMK_H
#define HMK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.cdef.h"

_Static_assert(sizeof(struct hmk_leg) == 4096, "a leg is one page");
_Static_assert(offsetof(struct hmk_leg, args) == 64, "line 0 is the doorbell");
_Static_assert(offsetof(struct hmk_leg, rets) == 128, "arguments fill line 1");
_Static_assert(offsetof(struct hmk_leg, wait_word) == 192, "results fill line 2");
_Static_assert(offsetof(struct hmk_leg, payload) == 512, "payload position");
_Static_assert(sizeof(struct hmk_slot) == 8192, "a slot is two pages");
_Static_assert(sizeof(struct hmk_frames) == HMK_MAX_SLOTS * 8192 + 4096, "the slots, and a page for the bitmap");
_Static_assert(sizeof(((struct hmk_frames *)0)->ready) * 8 == HMK_MAX_SLOTS, "a bit a slot");
_Static_assert(sizeof(struct hmk_carrier_record) == 128, "two lines a carrier");
_Static_assert(sizeof(struct hmk_operation_record) == 144, "operation record");
_Static_assert(sizeof(struct hmk_trace_event) == 32, "trace event");
_Static_assert(offsetof(struct hmk_pool_shared, carriers) == 64, "the core writes line 0 only");
_Static_assert(sizeof(struct hmk_pool_shared) == 128, "pool header");

#define HMK_PHASE(state) ((state) & HMK_PHASE_MASK)
#define HMK_SEQUENCE(state) ((state) >> 8)
#define HMK_STATE(sequence, bits) (((sequence) << 8) | (bits))
#define HMK_BIT(phase) (1u << (phase))
#define HMK_READY_PHASES (HMK_BIT(HMK_PHASE_IDLE) | HMK_BIT(HMK_PHASE_REPLY))

/* Shared words are plain integers in the ABI; every access to one that two parties race on goes through these. */
static inline uint32_t hmk_load(const uint32_t *word) {
  return atomic_load_explicit((const _Atomic uint32_t *)word, memory_order_acquire);
}

static inline uint32_t hmk_exchange(uint32_t *word, uint32_t value) {
  return atomic_exchange_explicit((_Atomic uint32_t *)word, value, memory_order_seq_cst);
}

static inline int hmk_swap(uint32_t *word, uint32_t *expected, uint32_t value) {
  return atomic_compare_exchange_strong_explicit((_Atomic uint32_t *)word, expected, value, memory_order_seq_cst,
                                                 memory_order_acquire);
}

static inline uint64_t hmk_load64(const uint64_t *word) {
  return atomic_load_explicit((const _Atomic uint64_t *)word, memory_order_relaxed);
}

static inline void hmk_store64(uint64_t *word, uint64_t value) {
  atomic_store_explicit((_Atomic uint64_t *)word, value, memory_order_relaxed);
}

/* Statistics: one writer at a time, any reader. */
static inline void hmk_count64(uint64_t *word, uint64_t more) { hmk_store64(word, hmk_load64(word) + more); }

/* Fields other than the state word are ordered by it; relaxed atomics keep a hostile peer's racing writes from
 * being undefined behaviour here, and force the single copy. */
#define HMK_GET(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define HMK_SET(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

static inline uint64_t hmk_ticks(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

/* Time and CPU in one unprivileged instruction; needs no thread-local storage, unlike rseq. */
static inline uint64_t hmk_ticks_cpu(uint32_t *cpu) {
  uint32_t low, high, aux;
  __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
  *cpu = aux & 0xfff;
  return (uint64_t)high << 32 | low;
}

static inline void hmk_pause(void) { __asm__ volatile("pause" ::: "memory"); }

#define HMK_SMALL 128

/* Small payloads by words: the string instruction takes longer to start than they take to copy. */
static inline void hmk_copy(void *to, const void *from, size_t length) {
  const char *source = from;
  char *target = to;
  if (length <= HMK_SMALL) {
    uint64_t word;
    for (; length >= 8; length -= 8, source += 8, target += 8) {
      __builtin_memcpy(&word, source, 8);
      __builtin_memcpy(target, &word, 8);
    }
    for (; length; length--) *target++ = *source++;
    return;
  }
  /* By words here too: the byte form is up to twenty times slower for some alignments of source and target. */
  size_t words = length / 8;
  __asm__ volatile("rep movsq" : "+D"(target), "+S"(source), "+c"(words)::"memory");
  for (length &= 7; length; length--) *target++ = *source++;
}

static inline long hmk_syscall(long number, long a, long b, long c, long d) {
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return result;
}

#define HMK_SYS_SCHED_YIELD 24
#define HMK_SYS_FUTEX 202
#define HMK_SYS_SCHED_SETAFFINITY 203
#define HMK_EINTR 4
#define HMK_ETIMEDOUT 110

/* Not FUTEX_PRIVATE: waiter and waker are in different processes. */
static inline void hmk_wake(uint32_t *word) { hmk_syscall(HMK_SYS_FUTEX, (long)word, 1, 0x7fffffff, 0); }

enum hmk_wait_end { HMK_WAIT_DONE = 0, HMK_WAIT_DEADLINE = 1, HMK_WAIT_SIGNAL = 2, HMK_WAIT_COMMAND = 3 };

struct hmk_wait {
  uint32_t *word; /* what is waited on */
  uint32_t phases; /* bit set of phases to wait through */
  uint32_t peer_cpu; /* where the peer last ran */
  struct hmk_wait_policy *policy;
  const uint32_t *command; /* a private word; non-zero ends the wait; may be NULL */
  uint64_t deadline; /* ticks, 0 none */
  uint64_t *waits; /* spun, yielded, slept */
  struct hmk_manners *manners;
  uint64_t *nap; /* ticks to sleep at most before the wait ends as if by a signal; NULL: for ever */
  uint32_t sleep_at_once;
  uint32_t peer_slept; /* and has just been woken: it will not answer within a spin */
  uint32_t state; /* out: the state that ended the wait */
};

enum hmk_wait_end hmk_wait_phase(struct hmk_wait *wait);
enum hmk_wait_end hmk_wait_word(uint32_t *word, uint32_t sequence, uint64_t deadline, uint64_t *nap,
                                const struct hmk_wait_policy *policy, const uint32_t *state);
int64_t hmk_fill_leg(struct hmk_link *link, struct hmk_leg *leg, const struct hmk_message *message);
int64_t hmk_collect_leg(struct hmk_link *link, struct hmk_leg *leg, const struct hmk_message *message);
long hmk_sleep(uint32_t *word, uint32_t value, uint64_t deadline, const struct hmk_wait_policy *policy);

/* Serves a call back into the waiting caller; returns the transport status written to the nested leg. */
typedef void (*hmk_nested_fn)(struct hmk_link *link, struct hmk_leg *leg);

#endif

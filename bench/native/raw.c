/*
 * Raw ping-pong between two processes over shared memory: the least that any call can cost on this host.
 *
 * Protocol: the client copies its payload into the request area and stores the next sequence number in `request`;
 * the server sees it, copies request to reply and stores the same number in `reply`; the client copies the reply
 * out. Each word has one writer and a cache line of its own. `spin` polls the word; otherwise the reader sleeps on
 * it (futex) and the writer wakes it every time.
 *
 * Invariant: reply <= request <= reply + 1 (modulo 2^32). Both sides are given the payload's length by their own
 * caller and never read it from the shared memory.
 */
#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct raw_area {
  _Alignas(64) _Atomic uint32_t request;
  _Alignas(64) _Atomic uint32_t reply;
  _Alignas(64) unsigned char payload[];
};

_Static_assert(sizeof(struct raw_area) == 128, "two control lines precede the payload");

static size_t raw_bytes(size_t payload) { return sizeof(struct raw_area) + 2 * payload; }

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void publish(_Atomic uint32_t *word, uint32_t value, int spin) {
  /* Release: the payload is written before the number; pairs with the acquire loads in await(). */
  atomic_store_explicit(word, value, memory_order_release);
  if (!spin) syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Wait until the word leaves `old`. The kernel re-checks the word, so no wake-up can be missed. */
static void await(_Atomic uint32_t *word, uint32_t old, int spin) {
  while (atomic_load_explicit(word, memory_order_acquire) == old) {
    if (spin)
      __builtin_ia32_pause();
    else
      syscall(SYS_futex, word, FUTEX_WAIT, old, NULL, NULL, 0);
  }
}

/* Serve for ever: the process is killed when the measurement is over. */
static void raw_serve(void *memory, size_t payload, int spin) {
  struct raw_area *area = memory;
  for (uint32_t sequence = 0;; sequence++) {
    await(&area->request, sequence, spin);
    memcpy(area->payload + payload, area->payload, payload);
    publish(&area->reply, sequence + 1, spin);
  }
}

static void call(struct raw_area *area, size_t payload, int spin, const void *in, void *out) {
  uint32_t sequence = atomic_load_explicit(&area->request, memory_order_relaxed);
  memcpy(area->payload, in, payload);
  publish(&area->request, sequence + 1, spin);
  await(&area->reply, sequence, spin);
  memcpy(out, area->payload + payload, payload);
}

/*
 * Call until `budget_ns` has passed or `capacity` samples are taken; returns how many. One clock reading per call,
 * shared by neighbouring samples, is part of each sample (20 to 30 ns).
 */
static size_t raw_measure(void *memory, size_t payload, int spin, const void *in, void *out, uint64_t budget_ns,
                          uint64_t *samples, size_t capacity) {
  struct raw_area *area = memory;
  uint64_t before = now_ns(), end = before + budget_ns;
  size_t n = 0;
  while (n < capacity && before < end) {
    call(area, payload, spin, in, out);
    uint64_t after = now_ns();
    samples[n++] = after - before;
    before = after;
  }
  return n;
}

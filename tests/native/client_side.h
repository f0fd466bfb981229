/* What the test clients share: no libc, no globals, so that the freestanding one can use it too.
 *
 * A client is given the descriptor of a frames object, the time stamp frequency and a seed; everything it does follows
 * from the seed. A check that fails says its line on standard error and ends the process with status 1.
 */
#ifndef CLIENT_SIDE_H
#define CLIENT_SIDE_H

#include "hmk.h"

#define FRAMES_BYTES sizeof(struct hmk_frames)
#define OP_NULL 1
#define OP_ECHO 2
#define OP_CHAIN 3
#define OP_WORK 4
#define OP_NONE 63

static inline long host6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

static inline void say(const char *text) {
  long length = 0;
  while (text[length]) length++;
  hmk_syscall(1, 2, (long)text, length, 0);
}

static inline _Noreturn void leave(int status) {
  for (;;) hmk_syscall(231, status, 0, 0, 0);
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) {                                              \
      say(__FILE__ ":" TEXT(__LINE__) ": not so: " #condition "\n"); \
      leave(1);                                                      \
    }                                                                \
  } while (0)

static inline struct hmk_slot *map_frames(int fd) {
  long at = host6(9, 0, (long)FRAMES_BYTES, 3, 1, fd, 0); /* mmap, readable and writable, shared */
  CHECK(at > 0);
  return (struct hmk_slot *)at;
}

static inline uint64_t number(const char *text) {
  uint64_t value = 0;
  for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (uint64_t)(*text - '0');
  return value;
}

/* The product's hybrid policy, filled by hand: hmk_policy_defaults() belongs to the service half. */
static inline void hybrid_policy(struct hmk_wait_policy *policy, uint64_t tick_khz, uint32_t cpus) {
  uint64_t microsecond = tick_khz / 1000 + 1;
  policy->tick_khz = tick_khz;
  policy->cpus = cpus;
  policy->hog = 1000 * microsecond;
  policy->spin = cpus > 1 ? 5 * microsecond : 0;
  policy->yield = 100 * microsecond;
}

static inline uint64_t draw(uint64_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  *seed ^= *seed << 17;
  return *seed;
}

static inline void scatter(uint8_t *bytes, uint32_t length, uint64_t *seed) {
  for (uint32_t i = 0; i < length; i++) bytes[i] = (uint8_t)(draw(seed) >> 32);
}

static inline int same(const uint8_t *a, const uint8_t *b, uint32_t length) {
  for (uint32_t i = 0; i < length; i++)
    if (a[i] != b[i]) return 0;
  return 1;
}

/* An echo of random bytes; `in` and `out` have HMK_INLINE bytes each. */
static inline struct hmk_message echo_message(uint8_t *in, uint8_t *out, uint64_t *seed) {
  struct hmk_message message = {.operation = OP_ECHO, .returns = 1, .in = in, .out = out, .out_capacity = HMK_INLINE};
  message.in_length = (uint32_t)(draw(seed) % (HMK_INLINE + 1));
  if (draw(seed) & 3) message.in_length %= 64;
  scatter(in, message.in_length, seed);
  return message;
}

static inline int echoed(const struct hmk_link *link, const struct hmk_message *message) {
  return link->rets[0] == message->in_length && link->reply_length == message->in_length &&
         same(message->in, message->out, message->in_length);
}

static inline void await_ready(struct hmk_link *link) {
  uint64_t give_up = hmk_ticks() + 10000 * link->policy->tick_khz;
  while (!hmk_link_ready(link)) {
    CHECK(hmk_ticks() < give_up);
    hmk_syscall(HMK_SYS_SCHED_YIELD, 0, 0, 0, 0);
  }
}

#endif

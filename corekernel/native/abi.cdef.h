/* The shared ABI: everything two protection domains both map, and the constants they agree on.
 *
 * This file is read twice: by the C compiler through hmk.h, and by ffi.cdef() through build.py; so it holds plain
 * declarations only. Sizes and offsets are asserted in hmk.h. Every field says who writes it. A field that a less
 * trusted party can write is copied once, then checked, then used.
 *
 * A *frames object* belongs to one (client process, service) pair and is mapped by those two and the core. It is an
 * array of slots; a slot is bound to one client thread on one side and to one carrier of the service on the other. After
 * the slots comes the *ready bitmap*, a bit a slot, in use when the service is polled (isolation class IC1): it tells the
 * poller where to look. The client sets the bit of a slot after it has moved the state to REQUEST, unless it stands
 * already; the poller takes it away when no request has come for a while, and then looks once more (poller.c).
 *
 * The state word of a slot is `sequence << 8 | flags | phase`. All transitions are sequentially consistent atomic
 * read-modify-writes, so a party that goes to sleep (sets HMK_SLEEP by compare-and-swap, then futex-waits on the value it
 * set) and a party that moves the phase (exchange, then wakes if HMK_SLEEP was set in the old value) cannot miss
 * each other.
 *
 *   phase          who waits     for
 *   IDLE, REPLY    carrier       REQUEST (from the caller)
 *   REQUEST        caller        REPLY, or NESTED (from the carrier)
 *   NESTED         carrier       NESTED_REPLY (from the caller, which serves a call back into itself)
 *   NESTED_REPLY   caller        REPLY, or NESTED again
 *   CANCELLED      nobody        the caller gave up; the carrier's REPLY makes the slot usable again
 *   DIED           nobody        set by the core when the service died; final for this frames object
 *
 * HMK_UNBOUND may stand beside IDLE and REPLY: no carrier listens, and the next call must bind first.
 */

#define HMK_ABI_VERSION 1
#define HMK_REGISTERS 8
#define HMK_INLINE 3584
#define HMK_MAX_SLOTS 4096
#define HMK_MAX_DEPTH 8
#define HMK_MAX_OPS 64
#define HMK_HISTOGRAM 32
#define HMK_TRACE_EVENTS 8192
#define HMK_MAX_CPUS 64

#define HMK_PHASE_IDLE 0
#define HMK_PHASE_REQUEST 1
#define HMK_PHASE_REPLY 2
#define HMK_PHASE_NESTED 3
#define HMK_PHASE_NESTED_REPLY 4
#define HMK_PHASE_CANCELLED 5
#define HMK_PHASE_DIED 6

#define HMK_PHASE_MASK 0x0f
#define HMK_SLEEP 0x10
#define HMK_UNBOUND 0x20

/* Transport status of a call; corekernel/errors.py has the same values. */
#define HMK_OK 0
#define HMK_E_DIED -1
#define HMK_E_DEADLINE -2
#define HMK_E_CANCELLED -3
#define HMK_E_INTERRUPTED -4
#define HMK_E_WAIT -5
#define HMK_E_BAD_OPERATION -6
#define HMK_E_BAD_FRAME -7
#define HMK_E_DENIED -8
#define HMK_E_FAULT -9
#define HMK_E_TOO_DEEP -10
#define HMK_E_TOO_BIG -11
#define HMK_E_NO_SERVICE -12
#define HMK_E_UNBOUND -13
#define HMK_E_NO_BUFFER -14
#define HMK_E_BUSY -15

#define HMK_PRIORITY_IDLE 0
#define HMK_PRIORITY_NORMAL 1
#define HMK_PRIORITY_HIGH 2

#define HMK_CARRIER_NONE 0
#define HMK_CARRIER_FREE 1
#define HMK_CARRIER_BOUND 2
#define HMK_CARRIER_RUNNING 3

#define HMK_PLACE_FREE 0
#define HMK_PLACE_SAME 1
#define HMK_PLACE_PINNED 2

/* Values of place_cpu for carriers that may run anywhere. */
#define HMK_PLACE_ANYWHERE 0xffffffff
#define HMK_PLACE_NOWHERE 0xfffffffe

#define HMK_OBSERVE_OPERATIONS 1
#define HMK_OBSERVE_TRACE 2

/* Flags of a leg. */
#define HMK_LEG_BULK 1
#define HMK_LEG_REPLY_BULK 2

/* One request and its reply: 4 KiB. */
struct hmk_leg {
  /* line 0: the doorbell; the two parties write it in turn */
  uint32_t state; /* both; see above (leg 0 of a slot only) */
  uint32_t caller_cpu; /* caller */
  uint32_t carrier_cpu; /* carrier */
  uint16_t operation; /* caller */
  uint8_t registers; /* caller: how many of args are meant */
  uint8_t flags; /* caller: HMK_LEG_BULK; carrier: HMK_LEG_REPLY_BULK */
  uint32_t length; /* caller: request payload, bytes */
  uint32_t reply_length; /* carrier: reply payload, bytes */
  int64_t status; /* carrier */
  uint64_t issued; /* caller: time stamp counter when issued */
  uint64_t deadline; /* caller: time stamp counter, 0 none; advisory for the service */
  uint64_t charged; /* carrier: time stamp ticks of handler time charged to the caller so far */
  uint8_t depth; /* caller: calls above this one in the chain */
  uint8_t priority; /* caller: HMK_PRIORITY_*; no more than its binding allows */
  uint16_t reserved0;
  uint32_t wait_sequence; /* carrier: wait word as it was before the handler answered WAIT */
  /* line 1 */
  uint64_t args[8]; /* caller */
  /* line 2 */
  uint64_t rets[8]; /* carrier */
  /* line 3: written by the service when a condition of this slot's caller comes true */
  uint32_t wait_word; /* bit 0: the caller sleeps; the rest counts wake-ups */
  uint32_t reserved1[15];
  uint8_t reserved2[256];
  uint8_t payload[3584]; /* caller, then carrier */
};

/* A slot: the call, and the call back into the caller that may happen while it waits (A -> B -> A). */
struct hmk_slot {
  struct hmk_leg leg[2];
};

/* A frames object. */
struct hmk_frames {
  struct hmk_slot slots[4096];
  uint64_t ready[64]; /* client; the poller clears; slot n is bit n % 64 of word n / 64 */
  uint8_t reserved[3584];
};

/* Shared between a service and the core, one per service process: what the pool does, and what the core asks of it.
 * Counters are written by the service and read by the core; they are information, never authority. */
struct hmk_carrier_record {
  uint32_t state; /* HMK_CARRIER_* */
  uint32_t client; /* bound to this client ... */
  uint32_t slot; /* ... and this slot of its frames object */
  uint32_t tid; /* host thread id inside the service */
  uint64_t calls; /* served since creation */
  uint64_t handler; /* time stamp ticks of handler time charged to the calling thread */
  uint64_t started; /* time stamp of the handler now running, 0 when none */
  uint64_t last_used; /* time stamp of the last reply */
  uint64_t waits[3]; /* how the last requests were awaited: spun, yielded, slept */
  uint64_t cpu; /* CPU it last ran on */
  uint64_t forged; /* frames refused: malformed, out of sequence */
  uint64_t handler_total; /* time stamp ticks spent in handlers since creation */
  uint64_t reserved[4];
};

struct hmk_operation_record {
  uint64_t calls;
  uint64_t handler; /* time stamp ticks in the handler */
  uint32_t histogram[32]; /* request issued to reply written, log2 of ticks / 64 */
};

struct hmk_trace_event {
  uint64_t at; /* time stamp at the start of the handler */
  uint32_t duration; /* ticks, saturating */
  uint32_t client;
  uint16_t slot;
  uint16_t operation;
  int32_t status;
  uint32_t cpu;
  uint32_t waited; /* ticks from issue to handler start, saturating */
};

struct hmk_pool_shared {
  /* written by the core */
  uint32_t observe; /* bit 0 per-operation statistics, bit 1 trace ring */
  uint32_t placement; /* HMK_PLACE_* */
  uint32_t place_cpu; /* PINNED: the CPU; FREE: the CPU to promote to, or HMK_PLACE_ANYWHERE or _NOWHERE */
  uint32_t place_epoch; /* bumped when the two above change */
  uint32_t core_reserved[12];
  /* written by the service */
  uint32_t carriers; /* records in use */
  uint32_t bound;
  uint32_t free;
  uint32_t reserved; /* parked in the reserve */
  uint64_t created;
  uint64_t reclaimed;
  uint32_t peak;
  uint32_t promoted;
  uint64_t trace_head;
  uint32_t service_reserved[4];
};

/* ---- private to a process from here on; declared here because cffi reads this file ---- */

/* How this process waits (one per process; every thread of it points here). */
struct hmk_wait_policy {
  uint64_t spin; /* ticks to spin when the peer is on another CPU; 0 never */
  uint64_t yield; /* ticks to yield; 0 never */
  uint64_t hog; /* a yield longer than this means a CPU hog */
  uint64_t tick_khz; /* time stamp ticks per millisecond */
  uint32_t cpus; /* CPUs online */
  uint32_t spin_same; /* spin even when the peer is on this CPU (the `spin` variant, for measurement) */
  uint64_t hog_until[64]; /* per CPU: no yielding before this time stamp */
  uint64_t hog_backoff[64];
  uint64_t quick[64]; /* per CPU: quick yields since the last slow one */
  uint64_t lost_until[64]; /* per CPU: no courtesy before this time stamp */
};

/* When a waiting thread last gave its CPU to others, and how long it may spin before it must again, in ticks. */
struct hmk_manners {
  uint64_t gave;
  uint64_t interval;
};

/* A request, in the caller's private memory. */
struct hmk_message {
  const uint8_t *in;
  uint8_t *out; /* NULL: leave the reply in the slot (the link says where) */
  uint32_t in_length;
  uint32_t out_capacity;
  uint16_t operation;
  uint8_t registers;
  uint8_t interruptible; /* a signal ends the wait with HMK_E_INTERRUPTED, to be resumed or cancelled */
  uint32_t returns; /* how many result registers to copy out */
  uint64_t args[8];
};

/* The client's private end of a slot. */
struct hmk_link {
  struct hmk_slot *slot;
  uint8_t *bulk;
  struct hmk_wait_policy *policy;
  void *nested; /* hmk_nested_fn, or NULL: no call back is accepted */
  void *nested_context;
  uint64_t deadline; /* ticks; 0 none */
  uint64_t rets[8];
  uint32_t bulk_size;
  uint32_t reply_length;
  uint32_t reply_bulk;
  uint32_t sequence;
  uint32_t busy; /* 0 free, 1 in a call, 2 interrupted in a call, 3 interrupted in a wait, 4 abandoned */
  uint32_t wait_sequence;
  uint32_t depth;
  uint32_t priority;
  uint32_t nested_key; /* binding record under which the callee may call back */
  uint32_t
      special; /* to be set up anew before each call: several ports with deadlines or classes of their own share it */
  uint64_t waits[3]; /* replies that were spun, yielded, slept for */
  struct hmk_manners manners;
  uint32_t woke; /* the carrier slept when the call in progress was issued */
  uint32_t link_reserved;
  uint64_t *ready; /* the word of the ready bitmap with this slot's bit; NULL: the service is not polled */
  uint64_t ready_bit;
  uint64_t nap; /* ticks that the next sleep of an interruptible wait may last, see client.c */
  struct hmk_message message; /* of the call in progress, when a caller in Python issued it */
};

/* Of a port in Python: the thread that called last, and its link. */
struct hmk_port {
  uint64_t thread; /* the interpreter's number of that thread, never used twice; 0 none */
  struct hmk_link *link;
};

int64_t hmk_call(struct hmk_link *link, const struct hmk_message *message);
int64_t hmk_start(struct hmk_link *link, const struct hmk_message *message);
int64_t hmk_finish(struct hmk_link *link, const struct hmk_message *message);
int hmk_reply_soon(struct hmk_link *link);
int64_t hmk_resume(struct hmk_link *link, const struct hmk_message *message);
int64_t hmk_cancel(struct hmk_link *link);
int hmk_link_ready(struct hmk_link *link);

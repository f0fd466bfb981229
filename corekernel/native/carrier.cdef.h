/* The service half, as cffi sees it. Everything here is private to a service process. */

/* One call as its handler sees it. */
struct hmk_context {
  uint64_t args[8];
  uint64_t rets[8];
  char *in; /* request payload; inline: a copy (C handlers), bulk: shared with the caller */
  uint32_t in_length; /* checked against its carrier's capacity */
  uint32_t in_bulk;
  uint32_t operation;
  uint32_t registers; /* checked: <= 8 */
  uint32_t returns; /* set by the handler: how many of rets are meant */
  uint32_t out_length; /* set by hmk_reply() */
  uint32_t out_bulk;
  uint32_t bulk_size;
  uint32_t carrier; /* key of the service's own binding record */
  uint32_t client; /* from the binding record, never from the frame */
  uint32_t depth;
  uint32_t priority;
  uint64_t deadline;
  uint64_t issued;
  char *bulk;
  struct hmk_leg *leg;
  struct hmk_slot *slot;
  struct hmk_carrier *owner;
};

/* Sums over the carriers of a pool. */
struct hmk_pool_totals {
  uint64_t calls;
  uint64_t handler;
  uint64_t spun;
  uint64_t yielded;
  uint64_t slept;
  uint64_t forged;
};

struct hmk_pool;
struct hmk_carrier;

struct hmk_pool *hmk_pool_open(struct hmk_pool_shared *shared, uint8_t *stacks, uint64_t stack_bytes, uint32_t limit,
                               struct hmk_wait_policy *policy, int python, uint32_t base);
struct hmk_context *hmk_current(void);
uint64_t hmk_pool_shared_size(uint32_t limit, uint32_t cpus);
struct hmk_carrier_record *hmk_pool_records(struct hmk_pool_shared *shared);
struct hmk_operation_record *hmk_pool_operations(struct hmk_pool_shared *shared, uint32_t limit);
struct hmk_trace_event *hmk_pool_trace(struct hmk_pool_shared *shared, uint32_t limit, uint32_t cpus);

void hmk_pool_sum(struct hmk_pool_shared *shared, uint32_t limit, struct hmk_pool_totals *totals);
uint64_t hmk_pool_longest(struct hmk_pool_shared *shared, uint32_t limit);
uint64_t hmk_pool_charged(struct hmk_pool_shared *shared, uint32_t limit, uint32_t client);

int hmk_pool_grow(struct hmk_pool *pool, uint32_t count, int reserved);
int hmk_pool_shrink(struct hmk_pool *pool, uint32_t count);
int hmk_pool_take(struct hmk_pool *pool, int reserve);
void hmk_pool_bind(struct hmk_pool *pool, uint32_t taken, uint32_t client, struct hmk_frames *frames, uint32_t index,
                   uint32_t max_priority, uint64_t charged);
int hmk_pool_unbind(struct hmk_pool *pool, uint32_t carrier, int force);
int hmk_pool_parked(struct hmk_pool *pool, uint32_t carrier);
int hmk_pool_set_bulk(struct hmk_pool *pool, uint32_t carrier, char *bulk, uint32_t size);
int hmk_pool_poll(struct hmk_pool *pool, uint32_t cpu);

int hmk_reply(struct hmk_context *context, const char *data, uint32_t length);
uint32_t hmk_sequence(struct hmk_slot *slot);
void hmk_notify(struct hmk_slot *slot);
int64_t hmk_call_back(struct hmk_context *context, const struct hmk_message *message, struct hmk_link *result);
void hmk_accept_nested(struct hmk_link *link, struct hmk_pool *pool, uint32_t key);
void hmk_frames_kill(struct hmk_slot *slots, uint32_t index);
int hmk_pool_set_next(struct hmk_pool *pool, uint32_t carrier, struct hmk_link *next);
uint64_t hmk_measure_tick_khz(void);
uint64_t hmk_now(void);
char *hmk_map(int fd, uint64_t size, int writable);
void hmk_unmap(char *at, uint64_t size);
int hmk_python_open(void);
void hmk_policy_defaults(struct hmk_wait_policy *policy, uint64_t tick_khz, uint32_t cpus, int variant);

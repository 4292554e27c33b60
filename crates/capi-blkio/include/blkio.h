/* blkio.h: block devices by io_uring, NVMe, vhost-user, vhost-vdpa and VFIO.
 *
 * This is the interface of libblkio 1.5, as blkit implements it: a program that was compiled against
 * either runs with both. What differs on purpose stands in docs/libblkio.md.
 *
 * Life. An instance is created for a driver; properties say what to connect to; connected, it tells
 * about the device; started, it has queues. The way is one way.
 *
 * Errors. Functions that return an int return a negative errno when they fail, and the thread's
 * message says why. Requests return nothing: what is wrong with one is told by its completion.
 *
 * Threads. Queues of one instance may be used by different threads at the same time, each queue by
 * one thread at a time. Everything else of an instance is for one thread at a time.
 */

#ifndef BLKIO_H
#define BLKIO_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An instance, and one of its queues. */
struct blkio;
struct blkioq;

/* Memory that requests may use. */
struct blkio_mem_region {
  void *addr;        /* Where it begins: a multiple of "mem-region-alignment". */
  size_t len;        /* Bytes: a multiple of it, too. */
  uint64_t iova;     /* 0. */
  int64_t fd_offset; /* Where in the file it begins. */
  int fd;            /* The file behind it, or -1 if "needs-mem-region-fd" is false. */
  uint32_t flags;    /* 0. */
};

/* What became of a request. */
struct blkio_completion {
  void *user_data;       /* What was given with the request. */
  const char *error_msg; /* Why it failed, or NULL. Valid until the queue's next call. */
  int ret;               /* 0 (for a report of zones: how many), or a negative errno. */
  uint8_t reserved_[12];
};

/* Why the thread's last call failed. The text stays until the thread's next call that fails. */
const char *blkio_get_error_msg (void);

/* Drivers: "io_uring", "nvme-io_uring", "virtio-blk-vhost-user", "virtio-blk-vhost-vdpa",
 * "virtio-blk-vfio-pci". */
int blkio_create (const char *driver, struct blkio **bp);
int blkio_connect (struct blkio *b);
int blkio_start (struct blkio *b);

/* Ends the instance, its queues and its regions, and sets *bp to NULL. No request may be in flight
 * whose memory goes before this call returns. NULL is allowed. */
void blkio_destroy (struct blkio **bp);

/* Properties. A function for another type than the property's fails with ENOTTY; text is converted.
 * The caller frees what blkio_get_str returns. */
int blkio_get_bool (struct blkio *b, const char *name, bool *value);
int blkio_get_int (struct blkio *b, const char *name, int *value);
int blkio_get_uint64 (struct blkio *b, const char *name, uint64_t *value);
int blkio_get_str (struct blkio *b, const char *name, char **value);
int blkio_set_bool (struct blkio *b, const char *name, bool value);
int blkio_set_int (struct blkio *b, const char *name, int value);
int blkio_set_uint64 (struct blkio *b, const char *name, uint64_t value);
int blkio_set_str (struct blkio *b, const char *name, const char *value);

/* Memory. A region is unmapped and freed with the fields it was mapped and allocated with, and not
 * while requests use it. */
int blkio_alloc_mem_region (struct blkio *b, struct blkio_mem_region *region, size_t len);
void blkio_free_mem_region (struct blkio *b, const struct blkio_mem_region *region);
int blkio_map_mem_region (struct blkio *b, const struct blkio_mem_region *region);
void blkio_unmap_mem_region (struct blkio *b, const struct blkio_mem_region *region);

/* Queues, from blkio_start to blkio_destroy or until they are removed. NULL: there is none of that
 * index. Adding returns the index; removing leaves the other indices as they are. */
struct blkioq *blkio_get_queue (struct blkio *b, int index);
struct blkioq *blkio_get_poll_queue (struct blkio *b, int index);
int blkio_add_queue (struct blkio *b);
int blkio_add_poll_queue (struct blkio *b);
int blkio_remove_queue (struct blkio *b, int index);
int blkio_remove_poll_queue (struct blkio *b, int index);

/* Flags of requests. */
enum {
  BLKIO_REQ_FUA = 1 << 0,         /* Writes, write zeroes: durable when complete. */
  BLKIO_REQ_NO_UNMAP = 1 << 1,    /* Write zeroes: keep the space. */
  BLKIO_REQ_NO_FALLBACK = 1 << 2, /* Write zeroes: not by writing them (ENOTSUP). */
};

/* Requests. Offsets and lengths are bytes. Buffers, and the arrays of iovecs, stay where they are
 * until the completion. */
void blkioq_read (struct blkioq *q, uint64_t start, void *buf, size_t len, void *user_data,
                  uint32_t flags);
void blkioq_write (struct blkioq *q, uint64_t start, const void *buf, size_t len, void *user_data,
                   uint32_t flags);
void blkioq_readv (struct blkioq *q, uint64_t start, const struct iovec *iovec, int iovcnt,
                   void *user_data, uint32_t flags);
void blkioq_writev (struct blkioq *q, uint64_t start, struct iovec *iovec, int iovcnt,
                    void *user_data, uint32_t flags);
void blkioq_write_zeroes (struct blkioq *q, uint64_t start, uint64_t len, void *user_data,
                          uint32_t flags);
void blkioq_discard (struct blkioq *q, uint64_t start, uint64_t len, void *user_data,
                     uint32_t flags);
void blkioq_flush (struct blkioq *q, void *user_data, uint32_t flags);

/* Kinds and states of zones. */
enum {
  BLKIO_ZONE_TYPE_CONVENTIONAL = 0x1,
  BLKIO_ZONE_TYPE_SEQWRITE_REQ = 0x2,
  BLKIO_ZONE_TYPE_SEQWRITE_PREF = 0x3,
};

enum {
  BLKIO_ZONE_STATE_EMPTY = 0x1,
  BLKIO_ZONE_STATE_IMP_OPEN = 0x2,
  BLKIO_ZONE_STATE_EXP_OPEN = 0x3,
  BLKIO_ZONE_STATE_CLOSED = 0x4,
  BLKIO_ZONE_STATE_READONLY = 0xD,
  BLKIO_ZONE_STATE_FULL = 0xE,
  BLKIO_ZONE_STATE_OFFLINE = 0xF,
};

/* A zone; all sizes and places are bytes. */
struct blkio_zone {
  uint64_t start;
  uint64_t len;
  uint64_t capacity;
  uint64_t write_pointer;
  uint8_t zone_type;
  uint8_t zone_state;
  uint8_t reset; /* 1: the device asks for a reset of this zone. */
  uint8_t reserved_[29];
};

/* Requests of zoned devices. A report begins with the zone that has the byte at offset. */
void blkioq_report_zones (struct blkioq *q, uint64_t offset, struct blkio_zone *zones,
                          uint32_t nr_zones, void *user_data, uint32_t flags);
void blkioq_close_zone (struct blkioq *q, uint64_t offset, void *user_data, uint32_t flags);
void blkioq_finish_zone (struct blkioq *q, uint64_t offset, void *user_data, uint32_t flags);
void blkioq_open_zone (struct blkioq *q, uint64_t offset, void *user_data, uint32_t flags);
void blkioq_reset_zone (struct blkioq *q, uint64_t offset, void *user_data, uint32_t flags);
void blkioq_close_all_zones (struct blkioq *q, void *user_data, uint32_t flags);
void blkioq_finish_all_zones (struct blkioq *q, void *user_data, uint32_t flags);
void blkioq_open_all_zones (struct blkioq *q, void *user_data, uint32_t flags);
void blkioq_reset_all_zones (struct blkioq *q, void *user_data, uint32_t flags);

/* Submits what was asked for, waits until at least min_completions have come or the time is over
 * (-ETIME: nothing is lost then), and writes at most max_completions. *timeout becomes the time
 * that is left. Returns how many. */
int blkioq_do_io (struct blkioq *q, struct blkio_completion *completions, int min_completions,
                  int max_completions, struct timespec *timeout);

/* The same, waiting with the signal mask *sig; a signal ends it with -EINTR. Not for poll queues. */
int blkioq_do_io_interruptible (struct blkioq *q, struct blkio_completion *completions,
                                int min_completions, int max_completions, struct timespec *timeout,
                                const sigset_t *sig);

/* A descriptor that becomes readable when blkioq_do_io should be called again; -1 for a poll queue.
 * Read 8 bytes from it first. It is the queue's: do not close it. Nothing is signalled until that is
 * enabled. */
int blkioq_get_completion_fd (struct blkioq *q);
void blkioq_set_completion_fd_enabled (struct blkioq *q, bool enable);

#ifdef __cplusplus
}
#endif

#endif /* BLKIO_H */

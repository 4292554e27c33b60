/* Each function of blkio.h with the type that programs compiled for libblkio 1.5 call it with, and the
 * structures as they lay them out. */

#include <stddef.h>
#include <signal.h>
#include <time.h>

#include <blkio.h>

#define SAME(what, is) _Static_assert ((what) == (is), #what)

SAME (sizeof (struct blkio_mem_region), 40);
SAME (offsetof (struct blkio_mem_region, addr), 0);
SAME (offsetof (struct blkio_mem_region, len), 8);
SAME (offsetof (struct blkio_mem_region, iova), 16);
SAME (offsetof (struct blkio_mem_region, fd_offset), 24);
SAME (offsetof (struct blkio_mem_region, fd), 32);
SAME (offsetof (struct blkio_mem_region, flags), 36);
SAME (sizeof (struct blkio_completion), 32);
SAME (offsetof (struct blkio_completion, user_data), 0);
SAME (offsetof (struct blkio_completion, error_msg), 8);
SAME (offsetof (struct blkio_completion, ret), 16);
SAME (offsetof (struct blkio_completion, reserved_), 20);
SAME (sizeof (struct blkio_zone), 64);
SAME (offsetof (struct blkio_zone, start), 0);
SAME (offsetof (struct blkio_zone, len), 8);
SAME (offsetof (struct blkio_zone, capacity), 16);
SAME (offsetof (struct blkio_zone, write_pointer), 24);
SAME (offsetof (struct blkio_zone, zone_type), 32);
SAME (offsetof (struct blkio_zone, zone_state), 33);
SAME (offsetof (struct blkio_zone, reset), 34);
SAME (offsetof (struct blkio_zone, reserved_), 35);
SAME (BLKIO_REQ_FUA, 1);
SAME (BLKIO_REQ_NO_UNMAP, 2);
SAME (BLKIO_REQ_NO_FALLBACK, 4);
SAME (BLKIO_ZONE_TYPE_CONVENTIONAL, 1);
SAME (BLKIO_ZONE_TYPE_SEQWRITE_REQ, 2);
SAME (BLKIO_ZONE_TYPE_SEQWRITE_PREF, 3);
SAME (BLKIO_ZONE_STATE_EMPTY, 1);
SAME (BLKIO_ZONE_STATE_IMP_OPEN, 2);
SAME (BLKIO_ZONE_STATE_EXP_OPEN, 3);
SAME (BLKIO_ZONE_STATE_CLOSED, 4);
SAME (BLKIO_ZONE_STATE_READONLY, 13);
SAME (BLKIO_ZONE_STATE_FULL, 14);
SAME (BLKIO_ZONE_STATE_OFFLINE, 15);

typedef struct blkio b;
typedef struct blkioq q;
typedef struct blkio_mem_region region;

int
main (void)
{
  const char *(*get_error_msg_is) (void) = blkio_get_error_msg;
  int (*create_is) (const char *, b **) = blkio_create;
  int (*connect_is) (b *) = blkio_connect;
  int (*start_is) (b *) = blkio_start;
  void (*destroy_is) (b **) = blkio_destroy;
  int (*get_bool_is) (b *, const char *, bool *) = blkio_get_bool;
  int (*set_bool_is) (b *, const char *, bool) = blkio_set_bool;
  int (*get_int_is) (b *, const char *, int *) = blkio_get_int;
  int (*set_int_is) (b *, const char *, int) = blkio_set_int;
  int (*get_uint64_is) (b *, const char *, uint64_t *) = blkio_get_uint64;
  int (*set_uint64_is) (b *, const char *, uint64_t) = blkio_set_uint64;
  int (*get_str_is) (b *, const char *, char **) = blkio_get_str;
  int (*set_str_is) (b *, const char *, const char *) = blkio_set_str;
  int (*alloc_mem_region_is) (b *, region *, size_t) = blkio_alloc_mem_region;
  void (*free_mem_region_is) (b *, const region *) = blkio_free_mem_region;
  int (*map_mem_region_is) (b *, const region *) = blkio_map_mem_region;
  void (*unmap_mem_region_is) (b *, const region *) = blkio_unmap_mem_region;
  q *(*get_queue_is) (b *, int) = blkio_get_queue;
  q *(*get_poll_queue_is) (b *, int) = blkio_get_poll_queue;
  int (*add_queue_is) (b *) = blkio_add_queue;
  int (*add_poll_queue_is) (b *) = blkio_add_poll_queue;
  int (*remove_queue_is) (b *, int) = blkio_remove_queue;
  int (*remove_poll_queue_is) (b *, int) = blkio_remove_poll_queue;
  void (*q_read_is) (q *, uint64_t, void *, size_t, void *, uint32_t) = blkioq_read;
  void (*q_write_is) (q *, uint64_t, const void *, size_t, void *, uint32_t) = blkioq_write;
  void (*q_readv_is) (q *, uint64_t, const struct iovec *, int, void *, uint32_t) = blkioq_readv;
  void (*q_writev_is) (q *, uint64_t, struct iovec *, int, void *, uint32_t) = blkioq_writev;
  void (*q_write_zeroes_is) (q *, uint64_t, uint64_t, void *, uint32_t) = blkioq_write_zeroes;
  void (*q_discard_is) (q *, uint64_t, uint64_t, void *, uint32_t) = blkioq_discard;
  void (*q_flush_is) (q *, void *, uint32_t) = blkioq_flush;
  void (*q_report_zones_is) (q *, uint64_t, struct blkio_zone *, uint32_t, void *,
    uint32_t) = blkioq_report_zones;
  void (*q_close_zone_is) (q *, uint64_t, void *, uint32_t) = blkioq_close_zone;
  void (*q_close_all_zones_is) (q *, void *, uint32_t) = blkioq_close_all_zones;
  void (*q_finish_zone_is) (q *, uint64_t, void *, uint32_t) = blkioq_finish_zone;
  void (*q_finish_all_zones_is) (q *, void *, uint32_t) = blkioq_finish_all_zones;
  void (*q_open_zone_is) (q *, uint64_t, void *, uint32_t) = blkioq_open_zone;
  void (*q_open_all_zones_is) (q *, void *, uint32_t) = blkioq_open_all_zones;
  void (*q_reset_zone_is) (q *, uint64_t, void *, uint32_t) = blkioq_reset_zone;
  void (*q_reset_all_zones_is) (q *, void *, uint32_t) = blkioq_reset_all_zones;
  int (*q_do_io_is) (q *, struct blkio_completion *, int, int, struct timespec *) = blkioq_do_io;
  int (*q_do_io_interruptible_is) (q *, struct blkio_completion *, int, int, struct timespec *,
    const sigset_t *) = blkioq_do_io_interruptible;
  int (*q_get_completion_fd_is) (q *) = blkioq_get_completion_fd;
  void (*q_set_completion_fd_enabled_is) (q *, bool) = blkioq_set_completion_fd_enabled;

  return !(get_error_msg_is && create_is && connect_is && start_is && destroy_is &&
           get_bool_is && set_bool_is && get_int_is && set_int_is && get_uint64_is &&
           set_uint64_is && get_str_is && set_str_is && alloc_mem_region_is &&
           free_mem_region_is && map_mem_region_is && unmap_mem_region_is && get_queue_is &&
           get_poll_queue_is && add_queue_is && add_poll_queue_is && remove_queue_is &&
           remove_poll_queue_is && q_read_is && q_write_is && q_readv_is && q_writev_is &&
           q_write_zeroes_is && q_discard_is && q_flush_is && q_report_zones_is &&
           q_close_zone_is && q_close_all_zones_is && q_finish_zone_is && q_finish_all_zones_is
           && q_open_zone_is && q_open_all_zones_is && q_reset_zone_is && q_reset_all_zones_is
           && q_do_io_is && q_do_io_interruptible_is && q_get_completion_fd_is &&
           q_set_completion_fd_enabled_is);
}

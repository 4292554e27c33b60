/* NULL in every place where C may put one: always EFAULT. Where libnbd was built by a compiler
 * that believes its attributes, some of these crash it. */

#include "check.h"

static int freed;

static void
on_free (void *user_data)
{
  (void) user_data;
  freed++;
}

#define MID(type) ((type) { .callback = NULL, .free = on_free })
#define COMPLETION ((nbd_completion_callback) { .callback = NULL, .free = on_free })

static void
without_a_handle (void)
{
  static char buf[512];

  SHOW (nbd_set_debug (NULL, true));
  SHOW (nbd_get_debug (NULL));
  SHOW_STRING (nbd_get_export_name (NULL));
  SHOW (nbd_get_version (NULL) == NULL);
  SHOW (nbd_get_size (NULL));
  SHOW (nbd_pread (NULL, buf, sizeof buf, 0, 0));
  SHOW (nbd_aio_pread (NULL, buf, sizeof buf, 0, COMPLETION, 0));
  SHOW (nbd_aio_pread_structured (NULL, buf, sizeof buf, 0, MID (nbd_chunk_callback), COMPLETION,
                                  0));
  SHOW (nbd_opt_list (NULL, MID (nbd_list_callback)));
  SHOW (nbd_stats_bytes_sent (NULL) == UINT64_MAX);
  SHOW (nbd_poll (NULL, -1));
  SHOW (nbd_aio_is_dead (NULL));
  nbd_close (NULL);
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();

  if (argc != 2)
    return 2;
  without_a_handle ();
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_pread (h, NULL, 512, 0, 0));
  SHOW (nbd_pwrite (h, NULL, 512, 0, 0));
  SHOW (nbd_aio_pread (h, NULL, 512, 0, COMPLETION, 0));
  SHOW (nbd_aio_pwrite (h, NULL, 512, 0, COMPLETION, 0));
  SHOW (nbd_pread_structured (h, NULL, 512, 0, MID (nbd_chunk_callback), 0));
  SHOW (nbd_block_status (h, 512, 0, MID (nbd_extent_callback), 0));
  SHOW (nbd_block_status_filter (h, 512, 0, NULL, MID (nbd_extent64_callback), 0));
  SHOW (nbd_set_debug_callback (h, MID (nbd_debug_callback)));
  printf ("freed %d\n", freed);
  /* No memory is that long. */
  SHOW (nbd_pread (h, &freed, SIZE_MAX, 0, 0));
  SHOW (nbd_pwrite (h, &freed, (size_t) 1 << 63, 0, 0));
  SHOW (nbd_get_size (h));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}

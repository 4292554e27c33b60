/* Block status with 64 bits, and with a filter of contexts. */

#include "check.h"

static int
on_extents (void *user_data, const char *metacontext, uint64_t offset, nbd_extent *entries,
            size_t nr_entries, int *error)
{
  size_t i;

  printf ("  %s %s from %" PRIu64 " error %d:", (char *) user_data, metacontext, offset, *error);
  for (i = 0; i < nr_entries; ++i)
    printf (" %" PRIu64 "/%" PRIu64, entries[i].length, entries[i].flags);
  printf ("\n");
  return 0;
}

static void
on_free (void *user_data)
{
  printf ("  %s freed\n", (char *) user_data);
}

#define EXTENTS ((nbd_extent64_callback) { on_extents, "extents", on_free })

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char *contexts[] = { LIBNBD_CONTEXT_BASE_ALLOCATION, NULL };
  char *unknown[] = { "no:such", NULL };
  int64_t cookie;

  if (argc != 2)
    return 2;
  MUST (nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_block_status_64 (h, 1 << 20, 0, EXTENTS, 0));
  SHOW (nbd_block_status_64 (h, 1 << 20, 0, EXTENTS, LIBNBD_CMD_FLAG_REQ_ONE));
  cookie = MUST (nbd_aio_block_status_64 (h, 65536, 0, EXTENTS, NBD_NULL_COMPLETION, 0));
  SHOW (wait_for (h, cookie));
  SHOW (nbd_can_block_status_payload (h));
  SHOW (nbd_block_status_filter (h, 1 << 20, 0, contexts, EXTENTS, 0));
  SHOW (nbd_block_status_filter (h, 1 << 20, 0, unknown, EXTENTS, 0));
  SHOW (nbd_aio_block_status_filter (h, 1 << 20, 0, unknown, EXTENTS, NBD_NULL_COMPLETION, 0));
  SHOW (nbd_block_status_filter (h, 1 << 20, 0, NULL, EXTENTS, 0));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}

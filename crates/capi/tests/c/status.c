/* Block status, with pairs of 32 bits. */

#include "check.h"

static int
on_extents (void *user_data, const char *metacontext, uint64_t offset, uint32_t *entries,
            size_t nr_entries, int *error)
{
  size_t i;

  printf ("  %s %s from %" PRIu64 " error %d:", (char *) user_data, metacontext, offset, *error);
  for (i = 0; i + 1 < nr_entries; i += 2)
    printf (" %u/%u", entries[i], entries[i + 1]);
  printf ("\n");
  return 0;
}

static int
refuse (void *user_data, const char *metacontext, uint64_t offset, uint32_t *entries,
        size_t nr_entries, int *error)
{
  (void) user_data, (void) metacontext, (void) offset, (void) entries, (void) nr_entries;
  *error = EXDEV;
  return -1;
}

static void
on_free (void *user_data)
{
  printf ("  %s freed\n", (char *) user_data);
}

#define EXTENTS ((nbd_extent_callback) { on_extents, "extents", on_free })

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  int64_t cookie;

  if (argc != 2)
    return 2;
  MUST (nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_block_status (h, 1 << 20, 0, EXTENTS, 0));
  SHOW (nbd_block_status (h, 1 << 20, 0, EXTENTS, LIBNBD_CMD_FLAG_REQ_ONE));
  SHOW (nbd_block_status (h, 4096, 65536, EXTENTS, 0));
  cookie = nbd_aio_block_status (h, 65536, 0, EXTENTS, NBD_NULL_COMPLETION, 0);
  if (cookie == -1)
    SHOW (cookie);
  else
    SHOW (wait_for (h, cookie));
  SHOW (nbd_block_status (h, 4096, 0, (nbd_extent_callback) { .callback = refuse }, 0));
  SHOW (nbd_block_status (h, 4096, 0, (nbd_extent_callback) { .callback = NULL }, 0));
  SHOW (nbd_block_status (h, 4096, 1 << 20, EXTENTS, 0));
  SHOW (nbd_block_status (h, 0, 0, EXTENTS, 0));
  SHOW (nbd_block_status (h, 4096, 0, EXTENTS, LIBNBD_CMD_FLAG_FUA));
  MUST (nbd_shutdown (h, 0));
  SHOW (nbd_block_status (h, 4096, 0, EXTENTS, 0));
  nbd_close (h);

  /* Not asked for: not there. */
  h = create ();
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_block_status (h, 4096, 0, EXTENTS, 0));
  nbd_close (h);
  return 0;
}

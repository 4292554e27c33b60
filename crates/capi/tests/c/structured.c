/* Reads in pieces: data, holes, and callbacks that fail. */

#include "check.h"

static char buf[131072];

struct sum {
  uint64_t data, hole, other;
  int freed;
};

static int
on_chunk (void *user_data, const void *subbuf, size_t count, uint64_t offset, unsigned status,
          int *error)
{
  struct sum *sum = user_data;

  if ((const char *) subbuf != buf + offset || *error != 0)
    printf ("a piece at %td for offset %" PRIu64 ", error %d\n", (const char *) subbuf - buf,
            offset, *error);
  if (status == LIBNBD_READ_DATA)
    sum->data += count;
  else if (status == LIBNBD_READ_HOLE)
    sum->hole += count;
  else
    sum->other += count;
  return 0;
}

static int
refuse (void *user_data, const void *subbuf, size_t count, uint64_t offset, unsigned status,
        int *error)
{
  (void) user_data, (void) subbuf, (void) count, (void) offset, (void) status;
  *error = EXDEV;
  return -1;
}

/* A failure without a word about it. */
static int
refuse_mutely (void *user_data, const void *subbuf, size_t count, uint64_t offset,
               unsigned status, int *error)
{
  (void) user_data, (void) subbuf, (void) count, (void) offset, (void) status, (void) error;
  return -1;
}

static void
on_free (void *user_data)
{
  ((struct sum *) user_data)->freed++;
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  struct sum sum = { 0 };
  nbd_chunk_callback chunk = { on_chunk, &sum, on_free };
  size_t i, wrong = 0;

  if (argc != 2)
    return 2;
  MUST (nbd_connect_unix (h, argv[1]));
  memset (buf, 'x', 65536);
  MUST (nbd_pwrite (h, buf, 65536, 0, 0));
  memset (buf, 'y', sizeof buf);
  SHOW (nbd_pread_structured (h, buf, sizeof buf, 0, chunk, 0));
  printf ("all %" PRIu64 " other %" PRIu64 " freed %d\n", sum.data + sum.hole, sum.other,
          sum.freed);
  for (i = 0; i < sizeof buf; ++i)
    wrong += buf[i] != (i < 65536 ? 'x' : 0);
  printf ("wrong %zu\n", wrong);
  SHOW (nbd_can_df (h));
  SHOW (nbd_pread_structured (h, buf, 4096, 0, chunk, LIBNBD_CMD_FLAG_DF));
  SHOW (nbd_pread_structured (h, buf, 4096, 0, chunk, LIBNBD_CMD_FLAG_FUA));
  SHOW (nbd_pread_structured (h, buf, 4096, 0, (nbd_chunk_callback) { .callback = refuse }, 0));
  SHOW (nbd_pread_structured (h, buf, 4096, 0,
                              (nbd_chunk_callback) { .callback = refuse_mutely }, 0));
  SHOW (nbd_pread_structured (h, buf, 4096, 0, (nbd_chunk_callback) { .callback = NULL }, 0));
  printf ("freed %d\n", sum.freed);
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}

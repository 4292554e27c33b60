/* Requests: all kinds, with each flag, and do_io's rules. */

#include "check.h"

#define SIZE 1048576

static struct blkioq *q;
static char *memory;

static void
flags (uint32_t with)
{
  struct iovec iovec = { memory, 4096 };

  printf ("flags %" PRIu32 "\n", with);
  blkioq_read (q, 0, memory, 4096, NULL, with);
  complete (q, "read");
  blkioq_write (q, 0, memory, 4096, NULL, with);
  complete (q, "write");
  blkioq_readv (q, 0, &iovec, 1, NULL, with);
  complete (q, "readv");
  blkioq_writev (q, 0, &iovec, 1, NULL, with);
  complete (q, "writev");
  blkioq_write_zeroes (q, 0, 4096, NULL, with);
  complete (q, "write zeroes");
  blkioq_discard (q, 0, 4096, NULL, with);
  complete (q, "discard");
  blkioq_flush (q, NULL, with);
  complete (q, "flush");
}

static void
zones (uint32_t with)
{
  struct blkio_zone zone;

  blkioq_report_zones (q, 0, &zone, 1, NULL, with);
  complete (q, "report zones");
  blkioq_close_zone (q, 0, NULL, with);
  complete (q, "close zone");
  blkioq_finish_zone (q, 0, NULL, with);
  complete (q, "finish zone");
  blkioq_open_zone (q, 0, NULL, with);
  complete (q, "open zone");
  blkioq_reset_zone (q, 0, NULL, with);
  complete (q, "reset zone");
  blkioq_close_all_zones (q, NULL, with);
  complete (q, "close all zones");
  blkioq_finish_all_zones (q, NULL, with);
  complete (q, "finish all zones");
  blkioq_open_all_zones (q, NULL, with);
  complete (q, "open all zones");
  blkioq_reset_all_zones (q, NULL, with);
  complete (q, "reset all zones");
}

static void
edges (void)
{
  struct iovec iovec[2] = { { memory, 512 }, { memory + 4096, 1024 } };
  struct iovec negative = { memory, 512 };

  printf ("edges\n");
  blkioq_read (q, SIZE - 512, memory, 512, NULL, 0);
  complete (q, "the last block");
  blkioq_readv (q, 0, iovec, 2, NULL, 0);
  complete (q, "two pieces");
  blkioq_readv (q, 0, &negative, -1, NULL, 0);
  complete (q, "minus one piece");
  blkioq_writev (q, 0, &negative, -1, NULL, 0);
  complete (q, "minus one piece, written");
  blkioq_write_zeroes (q, 0, 0, NULL, 0);
  complete (q, "zero zeroes");
  blkioq_write_zeroes (q, UINT64_MAX - 511, 1024, NULL, 0);
  complete (q, "zeroes that wrap around");
}

static void
waiting (void)
{
  struct blkio_completion completions[4];
  struct timespec timeout = { 0, 0 };
  int i;

  printf ("waiting\n");
  SHOW (blkioq_do_io (q, NULL, 0, 0, NULL));
  SHOW (blkioq_do_io (q, completions, 0, 4, NULL));
  SHOW (blkioq_do_io (q, completions, 1, 4, NULL));
  SHOW (blkioq_do_io (q, completions, 2, 1, NULL));
  SHOW (blkioq_do_io (q, completions, -1, 4, NULL));
  SHOW (blkioq_do_io (q, completions, 0, -1, NULL));
  SHOW (blkioq_do_io (q, NULL, 0, 1, NULL));
  SHOW (blkioq_do_io (q, completions, 0, 4, &timeout));
  for (i = 0; i < 3; ++i)
    blkioq_read (q, 0, memory + i * 4096, 4096, (void *) (uintptr_t) (100 + i), 0);
  SHOW (blkioq_do_io (q, completions, 4, 4, NULL));
  i = blkioq_do_io (q, completions, 2, 4, NULL);
  SHOW (i >= 2);
  if (i == 2)
    MUST (blkioq_do_io (q, completions, 1, 1, NULL));
  SHOW (blkioq_do_io (q, completions, 0, 4, NULL));
  for (i = 0; i < 3; ++i)
    blkioq_read (q, 0, memory, 4096, (void *) (uintptr_t) (100 + i), 0);
  SHOW (blkioq_do_io (q, completions, 1, 1, NULL));
  SHOW (blkioq_do_io (q, completions, 1, 1, NULL));
  SHOW (blkioq_do_io (q, completions, 1, 1, NULL));
  timeout = (struct timespec) { 5, 0 };
  blkioq_read (q, 0, memory, 4096, (void *) 7, 0);
  SHOW (blkioq_do_io (q, completions, 1, 1, &timeout));
  SHOW ((int) (uintptr_t) completions[0].user_data);
  SHOW (timeout.tv_sec == 4 && timeout.tv_nsec > 0);
  timeout = (struct timespec) { -1, 0 };
  blkioq_read (q, 0, memory, 4096, NULL, 0);
  SHOW (blkioq_do_io (q, completions, 0, 0, NULL));
  timeout = (struct timespec) { 0, 2000000000 };
  blkioq_read (q, 0, memory, 4096, NULL, 0);
  SHOW (blkioq_do_io (q, completions, 2, 2, &timeout));
}

int
main (int argc, char *argv[])
{
  struct blkio_mem_region region;
  struct blkio *b;
  int i;

  if (argc != 3)
    return 2;
  setvbuf (stdout, NULL, _IOLBF, 0);
  b = started (argv[1], argv[2]);
  region = region_of (b, 65536);
  memory = region.addr;
  q = blkio_get_queue (b, 0);
  for (i = 0; i < 9; ++i)
    flags (i);
  flags (1U << 31);
  zones (0);
  zones (1);
  zones (8);
  edges ();
  waiting ();
  blkio_destroy (&b);

  printf ("read-only\n");
  MUST (blkio_create (argv[1], &b));
  MUST (blkio_set_str (b, "path", argv[2]));
  MUST (blkio_set_bool (b, "read-only", true));
  MUST (blkio_connect (b));
  if (blkio_start (b) == 0) {
    region = region_of (b, 65536);
    memory = region.addr;
    q = blkio_get_queue (b, 0);
    flags (0);
    flags (1);
  }
  blkio_destroy (&b);
  return 0;
}

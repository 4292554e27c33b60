/* A server that dies: what waits for it fails, what comes later fails, and nothing waits for ever. */

#include "check.h"

#include <poll.h>
#include <sys/types.h>

int
main (int argc, char *argv[])
{
  struct blkio_completion completions[8];
  struct blkio_mem_region region;
  struct pollfd one = { .events = POLLIN };
  struct blkio *b;
  struct blkioq *q;
  int done, failed = 0, i;
  uint64_t events;

  if (argc != 4)
    return 2;
  b = started (argv[1], argv[2]);
  q = blkio_get_queue (b, 0);
  region = region_of (b, 65536);
  blkioq_read (q, 0, region.addr, 4096, NULL, 0);
  complete (q, "a read");
  one.fd = blkioq_get_completion_fd (q);
  blkioq_set_completion_fd_enabled (q, true);
  (void) !read (one.fd, &events, sizeof events);

  /* It is stopped, so that it answers nothing, and then it dies. */
  kill (atoi (argv[3]), SIGSTOP);
  for (i = 0; i < 8; ++i)
    blkioq_read (q, 0, (char *) region.addr + i * 4096, 4096, NULL, 0);
  SHOW (blkioq_do_io (q, completions, 0, 8, NULL));
  kill (atoi (argv[3]), SIGKILL);
  SHOW (poll (&one, 1, 30000));
  done = blkioq_do_io (q, completions, 8, 8, NULL);
  for (i = 0; i < done; ++i)
    failed += completions[i].ret < 0 && completions[i].error_msg != NULL;
  printf ("%d done, %d of them failed, and say why\n", done, failed);
  blkioq_flush (q, NULL, 0);
  done = blkioq_do_io (q, completions, 1, 1, NULL);
  printf ("a flush later: %d, %s\n", done, completions[0].ret < 0 ? "it failed" : "done?");
  blkio_destroy (&b);
  return 0;
}

/* Queues: how many, their indices, added and removed while the instance is started. */

#include "check.h"

static void
with (const char *driver, const char *path, int queues, int poll_queues)
{
  struct blkio *b = connected (driver, path);
  int i;

  printf ("%d queues and %d poll queues\n", queues, poll_queues);
  SHOW (blkio_set_int (b, "num-queues", queues));
  SHOW (blkio_set_int (b, "num-poll-queues", poll_queues));
  if (SHOW (blkio_start (b)), blkio_get_queue (b, 0) == NULL && poll_queues == 0)
    printf ("there is none\n");
  for (i = -1; i <= 3; ++i)
    printf ("  %d: queue %s, poll queue %s\n", i, blkio_get_queue (b, i) ? "yes" : "no",
            blkio_get_poll_queue (b, i) ? "yes" : "no");
  if (blkio_get_queue (b, 0) == NULL)
    printf ("  %s\n", blkio_get_error_msg ());
  blkio_destroy (&b);
}

int
main (int argc, char *argv[])
{
  struct blkio_completion completion;
  struct blkio *b;
  struct blkioq *q;

  if (argc != 3)
    return 2;
  with (argv[1], argv[2], 1, 0);
  with (argv[1], argv[2], 0, 0);
  with (argv[1], argv[2], 2, 0);
  with (argv[1], argv[2], 1, 1);
  with (argv[1], argv[2], 0, 1);
  with (argv[1], argv[2], 100, 0);

  b = started (argv[1], argv[2]);
  SHOW (blkio_get_queue (b, 0) == blkio_get_queue (b, 0));
  SHOW (blkio_get_queue (b, 1) != NULL);
  SHOW (blkio_get_poll_queue (b, 0) != NULL);
  SHOW (blkio_add_queue (b));
  SHOW (blkio_add_queue (b));
  SHOW (blkio_add_poll_queue (b));
  SHOW (blkio_remove_queue (b, 7));
  SHOW (blkio_remove_queue (b, -1));
  SHOW (blkio_remove_poll_queue (b, 7));
  SHOW (blkio_remove_poll_queue (b, -1));
  SHOW (blkio_remove_queue (b, 0));
  SHOW (blkio_remove_queue (b, 0));
  SHOW (blkio_get_queue (b, 0) != NULL);
  SHOW (blkio_get_queue (b, 1) != NULL);
  SHOW (blkio_add_queue (b));
  SHOW (blkio_get_queue (b, 0) != NULL);
  SHOW (blkio_add_queue (b));
  if ((q = blkio_get_queue (b, 1)) != NULL) {
    blkioq_flush (q, NULL, 0);
    SHOW (blkioq_do_io (q, &completion, 1, 1, NULL));
  }
  SHOW (blkio_add_poll_queue (b));
  blkio_destroy (&b);
  return 0;
}

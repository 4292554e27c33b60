/* Bytes: written in every way, read back in every way, from several threads on queues of their own. */

#include "check.h"

#include <pthread.h>

#define PART 262144
#define ROUNDS 200

struct part {
  struct blkioq *q;
  char *memory;
  uint64_t at;
  unsigned wrong;
};

static uint32_t
next (uint32_t *state)
{
  return *state = *state * 1664525 + 1013904223;
}

/* Waits for n completions. */
static unsigned
reap (struct blkioq *q, int n)
{
  struct blkio_completion completions[8];
  unsigned wrong = 0;
  int i, done;

  while (n > 0) {
    done = blkioq_do_io (q, completions, 1, 8, NULL);
    if (done < 1)
      return 1000;
    for (i = 0; i < done; ++i)
      wrong += completions[i].ret != 0;
    n -= done;
  }
  return wrong;
}

static void *
exercise (void *opaque)
{
  static char model[2][PART];
  struct part *part = opaque;
  char *is = model[part->at != 0], *buffer = part->memory;
  uint32_t seed = part->at + 1;
  struct iovec iovec[8][4];
  int round, i, k;

  memset (buffer, 0, PART);
  blkioq_write (part->q, part->at, buffer, PART, NULL, 0);
  part->wrong += reap (part->q, 1);
  for (round = 0; round < ROUNDS; ++round) {
    uint64_t at = next (&seed) / 512 % 448 * 512;

    switch (next (&seed) >> 29) {
    case 0: case 1:
      memset (buffer, round + 1, 32768);
      blkioq_write (part->q, part->at + at, buffer, 32768, NULL, round & 1 ? BLKIO_REQ_FUA : 0);
      part->wrong += reap (part->q, 1);
      memset (is + at, round + 1, 32768);
      break;
    case 2: case 3:
      /* Eight at a time, of four pieces each. */
      for (i = 0; i < 8; ++i) {
        for (k = 0; k < 4; ++k)
          iovec[i][k] = (struct iovec) { buffer + (i * 4 + k) * 4096, 1024 };
        memset (buffer + i * 16384, round + i, 16384);
        blkioq_writev (part->q, part->at + at + i * 4096, iovec[i], 4, NULL, 0);
        memset (is + at + i * 4096, round + i, 4096);
      }
      part->wrong += reap (part->q, 8);
      break;
    case 4:
      blkioq_write_zeroes (part->q, part->at + at, 32768, NULL,
                           round & 1 ? BLKIO_REQ_NO_UNMAP : 0);
      part->wrong += reap (part->q, 1);
      memset (is + at, 0, 32768);
      break;
    case 5:
      blkioq_flush (part->q, NULL, 0);
      part->wrong += reap (part->q, 1);
      break;
    default:
      memset (buffer, 0xee, 32768);
      for (k = 0; k < 4; ++k)
        iovec[0][k] = (struct iovec) { buffer + k * 8192, 8192 };
      blkioq_readv (part->q, part->at + at, iovec[0], 4, NULL, 0);
      part->wrong += reap (part->q, 1);
      part->wrong += memcmp (buffer, is + at, 32768) != 0;
    }
  }
  blkioq_read (part->q, part->at, buffer, PART, NULL, 0);
  part->wrong += reap (part->q, 1);
  part->wrong += memcmp (buffer, is, PART) != 0;
  return NULL;
}

int
main (int argc, char *argv[])
{
  struct blkio_mem_region region;
  struct part parts[2];
  pthread_t thread[2];
  struct blkio *b;
  int i;

  if (argc != 3)
    return 2;
  b = connected (argv[1], argv[2]);
  MUST (blkio_set_int (b, "num-queues", 2));
  MUST (blkio_start (b));
  region = region_of (b, 2 * PART);
  for (i = 0; i < 2; ++i)
    parts[i] = (struct part) { .q = blkio_get_queue (b, i),
                               .memory = (char *) region.addr + i * PART,
                               .at = (uint64_t) i * PART };
  for (i = 0; i < 2; ++i)
    pthread_create (&thread[i], NULL, exercise, &parts[i]);
  for (i = 0; i < 2; ++i)
    pthread_join (thread[i], NULL);
  printf ("wrong: %u and %u\n", parts[0].wrong, parts[1].wrong);
  blkio_destroy (&b);
  return 0;
}

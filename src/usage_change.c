/*-------------------------------------------------------------------------
 *
 * usage_change.c
 *		The changes of one statement, by workspace.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

/*
 * pp_changes_begin begins with none.
 */
void
pp_changes_begin(PpChanges *changes)
{
	changes->count = 0;
	changes->others = NULL;
	changes->last = NULL;
	changes->sorted = NULL;
	changes->ended = NULL;
	changes->ended_count = 0;
	changes->ended_room = 0;
}

/*
 * pp_change_of returns the change of a workspace, a new one at first.
 */
PpUsageChange *
pp_change_of(PpChanges *changes, int64 workspace_id)
{
	bool		found = false;

	if (changes->last != NULL && changes->last->workspace_id == workspace_id)
		return changes->last;
	if (changes->count == 0 || changes->first.workspace_id == workspace_id)
	{
		found = changes->count > 0;
		changes->last = &changes->first;
	}
	else
	{
		if (changes->others == NULL)
		{
			HASHCTL		control = {0};

			control.keysize = sizeof(int64);
			control.entrysize = sizeof(PpUsageChange);
			control.hcxt = CurrentMemoryContext;
			changes->others = hash_create("changes of workspaces", 64, &control,
										  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		}
		changes->last = hash_search(changes->others, &workspace_id, HASH_ENTER, &found);
	}
	if (!found)
	{
		changes->count++;
		memset(changes->last, 0, sizeof(PpUsageChange));
		changes->last->workspace_id = workspace_id;
		changes->last->first_activation = DT_NOEND;
		changes->last->first_end = DT_NOEND;
		changes->last->last_end = DT_NOBEGIN;
	}
	return changes->last;
}

/*
 * compare_changes orders changes by workspace.
 */
static int
compare_changes(const void *a, const void *b)
{
	int64		left = (*(PpUsageChange *const *) a)->workspace_id;
	int64		right = (*(PpUsageChange *const *) b)->workspace_id;

	return left < right ? -1 : left > right;
}

/*
 * pp_changes_apply has the changes counted, in the order of workspaces, and told to
 * who wants to hear of keys.
 */
void
pp_changes_apply(PpChanges *changes, bool restoring)
{
	int			count = 0;

	if (changes->count == 0)
		return;
	changes->sorted = palloc(changes->count * sizeof(PpUsageChange *));
	changes->sorted[count++] = &changes->first;
	if (changes->others != NULL)
	{
		PpUsageChange *change;
		HASH_SEQ_STATUS scan;

		hash_seq_init(&scan, changes->others);
		while ((change = hash_seq_search(&scan)) != NULL)
			changes->sorted[count++] = change;
		qsort(changes->sorted, count, sizeof(PpUsageChange *), compare_changes);
	}
	pp_check_reference(changes->sorted, count);
	pp_usage_apply(changes->sorted, count, restoring);
	if (!restoring)
		pp_key_events(changes->sorted, count);
}

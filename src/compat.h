/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Every difference between the PostgreSQL versions we build on (15 to 18).
 *
 * No other file asks for PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PP_COMPAT_H
#define PP_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "partner_portal needs PostgreSQL 15 or newer"
#endif

/* The "extra" of a setting is malloc'ed up to 15 and guc_malloc'ed from 16. */
#if PG_VERSION_NUM >= 160000
#define pp_guc_malloc(size)		guc_malloc(LOG, (size))
#else
#define pp_guc_malloc(size)		malloc(size)
#endif

/* 18 counts index scans for EXPLAIN. */
#if PG_VERSION_NUM >= 180000
#define pp_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define pp_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/* Those of a row that may be there already, which tell of a conflict; and the look for one before, from which 18 can leave a row out. */
#if PG_VERSION_NUM >= 160000
#define pp_insert_speculative_tuples(result, slot, estate, conflict, arbiters) \
	ExecInsertIndexTuples((result), (slot), (estate), false, true, (conflict), (arbiters), false)
#else
#define pp_insert_speculative_tuples(result, slot, estate, conflict, arbiters) \
	ExecInsertIndexTuples((result), (slot), (estate), false, true, (conflict), (arbiters))
#endif
#if PG_VERSION_NUM >= 180000
#define pp_check_index_constraints(result, slot, estate, conflict, arbiters) \
	ExecCheckIndexConstraints((result), (slot), (estate), (conflict), &(slot)->tts_tid, (arbiters))
#else
#define pp_check_index_constraints(result, slot, estate, conflict, arbiters) \
	ExecCheckIndexConstraints((result), (slot), (estate), (conflict), (arbiters))
#endif

/* Index entries of a new row; from 16 a version on the same page may need those of summarizing indexes alone. */
#if PG_VERSION_NUM >= 160000
#include "access/tableam.h"
#define pp_insert_index_tuples(result, slot, estate, only_summarizing) \
	ExecInsertIndexTuples((result), (slot), (estate), false, false, NULL, NIL, (only_summarizing))
#define PpUpdateIndexes		TU_UpdateIndexes
#define pp_only_summarizing(update_indexes)		((update_indexes) == TU_Summarizing)
#else
#define pp_insert_index_tuples(result, slot, estate, only_summarizing) \
	ExecInsertIndexTuples((result), (slot), (estate), false, false, NULL, NIL)
#define PpUpdateIndexes		bool
#define pp_only_summarizing(update_indexes)		false
#endif

/* Actions of the JSON parser return a verdict from 16, the lexer takes one more argument from 17. */
#if PG_VERSION_NUM >= 160000
#define PP_JSON_ACTION		JsonParseErrorType
#define PP_JSON_CONTINUE	return JSON_SUCCESS
#else
#define PP_JSON_ACTION		void
#define PP_JSON_CONTINUE	return
#endif
#if PG_VERSION_NUM >= 170000
#define pp_json_lexer(text, length) \
	makeJsonLexContextCstringLen(NULL, (text), (length), GetDatabaseEncoding(), true)
#else
#define pp_json_lexer(text, length) \
	makeJsonLexContextCstringLen((text), (length), GetDatabaseEncoding(), true)
#endif

/* 17 lets a resource owner free wait event sets; ours are freed by hand. */
#if PG_VERSION_NUM >= 170000
#define pp_create_wait_event_set(nevents)	CreateWaitEventSet(NULL, (nevents))
#else
#define pp_create_wait_event_set(nevents)	CreateWaitEventSet(TopMemoryContext, (nevents))
#endif

/* 18 has pg_noreturn, before the declaration, in place of pg_attribute_noreturn(). */
#if PG_VERSION_NUM >= 180000
#define pp_noreturn		pg_noreturn
#else
#define pp_noreturn		pg_attribute_noreturn()
#endif

/* 18 parted what puts EXPLAIN's lines together from what runs it. */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#else
#include "commands/explain.h"
#endif

/* 16 has one function for the privileges on all sorts of objects. */
#if PG_VERSION_NUM >= 160000
#define pp_function_aclcheck(function, role) \
	object_aclcheck(ProcedureRelationId, (function), (role), ACL_EXECUTE)
#else
#define pp_function_aclcheck(function, role) \
	pg_proc_aclcheck((function), (role), ACL_EXECUTE)
#endif

/* What EXPLAIN calls an output of an initplan: by its column from 17, by its parameter before. */
#if PG_VERSION_NUM >= 170000
#define pp_append_output(text, param, column)	appendStringInfo((text), "col%d", (column))
#else
#define pp_append_output(text, param, column)	appendStringInfo((text), "$%d", (param))
#endif

/* The number of the transaction in this session. */
#if PG_VERSION_NUM >= 170000
#define pp_local_transaction_id()		(MyProc->vxid.lxid)
#else
#define pp_local_transaction_id()		(MyProc->lxid)
#endif

/* 18 has CHECKs that are not enforced, and columns that are computed when they are read; and calls the states of CHECKs so. */
#if PG_VERSION_NUM >= 180000
#define pp_check_enforced(check)		((check)->ccenforced)
#define pp_has_virtual_columns(constr)	((constr)->has_generated_virtual)
#define pp_check_states(result)			((result)->ri_CheckConstraintExprs)
#else
#define pp_check_enforced(check)		true
#define pp_has_virtual_columns(constr)	false
#define pp_check_states(result)			((result)->ri_ConstraintExprs)
#endif

/* 18 no longer says whether a query is run once. */
#if PG_VERSION_NUM >= 180000
#define PP_EXECUTOR_RUN_PARAMETERS	QueryDesc *queryDesc, ScanDirection direction, uint64 count
#define PP_EXECUTOR_RUN_ARGUMENTS	queryDesc, direction, count
#else
#define PP_EXECUTOR_RUN_PARAMETERS \
	QueryDesc *queryDesc, ScanDirection direction, uint64 count, bool execute_once
#define PP_EXECUTOR_RUN_ARGUMENTS	queryDesc, direction, count, execute_once
#endif

#endif							/* PP_COMPAT_H */

// The key figures of each kernel, from what `ncu --import FILE --csv --page raw --print-units base`
// prints: a line of names, one of units, and one for each launch.

/** A line of CSV, whose cells are quoted where they hold commas. */
function cells(line) {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
    ([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain,
  );
}

/** [key, ncu's name, factor]; of several names the first that is there. */
const wanted = [
  ['milliseconds', ['gpu__time_duration.sum'], 1e-6],
  ['readGB', ['dram__bytes_read.sum'], 1e-9],
  ['writtenGB', ['dram__bytes_write.sum'], 1e-9],
  [
    'dramPercent',
    [
      'dram__throughput.avg.pct_of_peak_sustained_elapsed',
      'gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed',
    ],
    1,
  ],
  ['l1HitPercent', ['l1tex__t_sector_hit_rate.pct'], 1],
  ['l2HitPercent', ['lts__t_sector_hit_rate.pct'], 1],
  ['smPercent', ['sm__throughput.avg.pct_of_peak_sustained_elapsed'], 1],
  [
    'issuedPerCycle',
    ['smsp__issue_active.avg.per_cycle_active', 'smsp__inst_executed.avg.per_cycle_active'],
    1,
  ],
  ['warpsActivePercent', ['sm__warps_active.avg.pct_of_peak_sustained_active'], 1],
  ['instructions', ['smsp__inst_executed.sum', 'sm__inst_executed.sum'], 1],
  ['registers', ['launch__registers_per_thread'], 1],
  ['blocks', ['launch__grid_size'], 1],
  ['blocksByRegisters', ['launch__occupancy_limit_registers'], 1],
  ['blocksByShared', ['launch__occupancy_limit_shared_mem'], 1],
  [
    'bankConflicts',
    [
      'l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum',
      'l1tex__data_bank_conflicts_pipe_lsu.sum',
    ],
    1,
  ],
  ['localLoads', ['smsp__inst_executed_op_local_ld.sum', 'sass__inst_executed_local_loads'], 1],
  ['localStores', ['smsp__inst_executed_op_local_st.sum', 'sass__inst_executed_local_stores'], 1],
];
const stall =
  /^smsp__average_warps?_(?:latency_)?issue_stalled_(\w+?)(?:_per_issue_active)?\.ratio$/;
/** Base units; the others are counts and shares. */
const units = { milliseconds: /^(ns|nsecond)$/, readGB: /^bytes?$/, writtenGB: /^bytes?$/ };

/**
 * @param {string} csv the output of ncu
 * @returns {object[]} for each launch its kernel, the figures that are there, and the reasons for
 *   which warps waited, the longest first
 */
export function parseNcu(csv) {
  const lines = csv.split('\n').filter((line) => line.startsWith('"'));
  if (lines.length < 2) return [];
  const [names, unitRow, ...launches] = lines.map(cells);
  const columns = new Map(names.map((name, i) => [name, i]));
  return launches.map((row) => {
    const number = (name) => {
      const text = row[columns.get(name)]?.replaceAll(',', '').trim();
      return text === undefined || text === '' || Number.isNaN(Number(text))
        ? undefined
        : Number(text);
    };
    const figures = { kernel: row[columns.get('Kernel Name')] };
    for (const [key, candidates, factor] of wanted) {
      const name = candidates.find((each) => number(each) !== undefined);
      if (name === undefined) continue;
      const unit = unitRow[columns.get(name)];
      if (units[key] && !units[key].test(unit))
        throw new Error(`${name} is in ${unit}; expected ncu --print-units base`);
      figures[key] = number(name) * factor;
    }
    const stalls = names
      .flatMap((name) => {
        const reason = stall.exec(name)?.[1];
        const value = number(name);
        return reason === undefined || reason.endsWith('_not_issued') || value === undefined
          ? []
          : [[reason, value]];
      })
      .sort(([, a], [, b]) => b - a);
    return { ...figures, stalls: Object.fromEntries(stalls.slice(0, 6)) };
  });
}

/** A line for each launch. `labels`: what each was and must move, in the same order. */
export function ncuLines(launches, labels) {
  const figure = (value, digits = 1, unit = '') =>
    value === undefined ? '?' : `${value.toFixed(digits)}${unit}`;
  return launches.map((launch, i) => {
    const label = labels[i];
    const what = label ? `${label.mode} ${label.rows} x ${label.vocab}` : launch.kernel;
    const floor = label
      ? ` (floor ${figure(label.floorRead / 1e9, 2)} and ${figure(label.floorWritten / 1e9, 2)})`
      : '';
    const waits = Object.entries(launch.stalls).slice(0, 3);
    return [
      `${what}: ${figure(launch.milliseconds, 3)} ms`,
      `DRAM ${figure(launch.dramPercent, 1, ' %')}`,
      `read ${figure(launch.readGB, 2)}, written ${figure(launch.writtenGB, 2)} GB${floor}`,
      `L2 hits ${figure(launch.l2HitPercent, 0, ' %')}`,
      `issued ${figure(launch.issuedPerCycle, 2)} a cycle`,
      `warps ${figure(launch.warpsActivePercent, 0, ' %')}`,
      `registers ${figure(launch.registers, 0)}`,
      `waits: ${waits.map(([reason, value]) => `${reason} ${figure(value, 1)}`).join(', ') || '?'}`,
    ].join('; ');
  });
}

"""The look of the page: one sheet for phone, screen and paper, light and dark; the reader's own fonts.

Old is orange, new is blue, and each has a shape or a word of its own as well: nothing is told by colour alone.
"""

__all__ = ["STYLE"]

STYLE = """
:root{color-scheme:light dark;
--page:#fff;--ink:#1f2328;--muted:#57606a;--line:#d8dee4;--soft:#eef1f4;--card:#f6f8fa;
--new:#1d62b4;--new-fill:#e1ecfa;--old:#9a5415;--old-fill:#fdf0e2;--warn:#8a4b10;--warn-fill:#fff6ea;--wire:#8c959f}
@media screen and (prefers-color-scheme:dark){:root{
--page:#0d1117;--ink:#e6edf3;--muted:#9da7b3;--line:#2d343d;--soft:#1b222b;--card:#151b23;
--new:#6cabf2;--new-fill:#132a48;--old:#e3a15f;--old-fill:#33230f;--warn:#f0b177;--warn-fill:#2a1d0d;--wire:#7d8590}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:28px 24px 56px;max-width:1160px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
h1{font-size:22px;line-height:1.25;margin:2px 0 4px;font-weight:650}
h2{font-size:17px;line-height:1.3;margin:44px 0 4px;font-weight:650}
h3{font-size:14px;margin:20px 0 4px;font-weight:650}
p{margin:4px 0 10px}
.note,.eyebrow,figcaption{color:var(--muted);font-size:13px}
.eyebrow{margin:0;letter-spacing:.02em}
a{color:var(--new)}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.89em}
.narrow{max-width:72ch}
.hero{display:flex;flex-wrap:wrap;gap:8px 44px;align-items:center;margin:20px 0 4px}
.big{font-size:60px;line-height:1;font-weight:700;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.big small{font-size:17px;font-weight:500;letter-spacing:0;color:var(--muted);margin-left:8px}
.hero p{margin:6px 0 0;font-variant-numeric:tabular-nums}
.hero figure{flex:1 1 300px}
figure{margin:0;min-width:0}
svg{display:block;width:100%;height:auto;font-family:inherit}
svg.strip{max-width:520px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(148px,1fr));gap:10px;margin:20px 0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:9px 12px}
.tiles dt{font-size:12.5px;color:var(--muted)}
.tiles dd{margin:0;font-size:18px;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.35}
.tiles dd small{display:block;font-size:12.5px;font-weight:400;color:var(--muted)}
.warning{border-left:3px solid var(--warn);background:var(--warn-fill);border-radius:0 6px 6px 0;padding:8px 12px;
margin:8px 0;font-size:14px}
.warning b{color:var(--warn)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:20px 32px;margin-top:10px}
.pair svg{max-width:560px}
.nets{display:flex;flex-wrap:wrap;gap:18px 22px;margin-top:12px}
.nets div{width:348px;max-width:100%;border:1px solid var(--line);border-radius:10px}
.heads{display:grid;grid-template-columns:1fr 1fr;text-align:center;font-size:12.5px;color:var(--muted);padding-top:6px}
.heads span{padding:0 4px}
.nets .heads{border:0;width:auto}
table{border-collapse:collapse;width:100%;font-size:14px;margin-top:8px}
caption{text-align:left;color:var(--muted);font-size:13px;padding-bottom:4px}
th,td{text-align:left;vertical-align:top;padding:6px 12px 6px 0;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
thead th{overflow-wrap:normal;font-size:12.5px;font-weight:600;color:var(--muted);vertical-align:bottom;
border-bottom:1px solid var(--muted)}
tbody th{font-weight:500}
tfoot th,tfoot td{font-weight:600;border-bottom:0}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;overflow-wrap:normal}
td small,th small{display:block;color:var(--muted);font-size:12.5px;font-weight:400}
tr.taken th,tr.taken td{font-weight:650}
tr:target th,tr:target td{background:var(--new-fill)}
.bar{height:5px;border-radius:3px;background:var(--new);margin-top:4px;min-width:1px}
.stages{max-width:640px}.stages .share{width:60%;vertical-align:middle}.stages .bar{margin:0}
.facts{width:auto;max-width:100%}
.facts th{color:var(--muted);font-weight:400;white-space:nowrap;overflow-wrap:normal;padding-right:20px}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:11px 13px;margin:8px 0;
white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px;line-height:1.55}
.num small{white-space:normal}
@media (min-width:721px){.blocks tr>:first-child{width:27%}.blocks tr>:nth-child(2){width:25%}}
.names{columns:260px;column-gap:24px;margin:6px 0;padding:0;list-style:none;font-size:13px}
footer{margin-top:48px;padding-top:10px;border-top:1px solid var(--line);color:var(--muted);font-size:13px}
.t{font-size:11px}.f{font-size:10px}.u{font-size:11.5px}.s{font-size:9px}.n{font-size:8.5px}.b{font-weight:650}
.mid{text-anchor:middle}.end{text-anchor:end}
svg .ink{fill:var(--ink)}svg .muted{fill:var(--muted)}svg .mono{font-size:8.5px}
.chart .t,.strip .t{font-size:12px}.chart .u{font-size:13px}
.axis{fill:none;stroke:var(--muted)}.grid{stroke:var(--line)}
.asked{stroke:var(--muted);stroke-width:1.4;stroke-dasharray:4 3}
.curve{fill:none;stroke:var(--new);stroke-width:2;stroke-linejoin:round}
.drops{fill:none;stroke:var(--old);stroke-width:1.6;stroke-dasharray:6 4;stroke-linejoin:round}
.curve.dot{fill:var(--new);stroke:none}.drops.dot{fill:var(--old);stroke:none}
.other{fill:var(--page);stroke:var(--muted);stroke-width:1.5}
.chosen{fill:var(--ink);stroke:var(--page);stroke-width:1.5}
.guess{fill:var(--page);stroke:var(--new);stroke-width:2}
.whisker{stroke:var(--ink);stroke-width:2}.whisker.wide{stroke-width:3.5}
.band{fill:var(--soft);stroke:var(--line)}a:hover .band,a:focus .band{stroke:var(--new)}
.net a{text-decoration:none}
.on-band,.on-page{paint-order:stroke;stroke:var(--soft);stroke-width:5px;stroke-linejoin:round}
.on-page{stroke:var(--page)}
.kept{fill:var(--page);stroke:var(--wire)}.kept.moved{stroke:var(--new);stroke-width:1.6;stroke-dasharray:4 2.5}
.old{fill:var(--old-fill);stroke:var(--old);stroke-dasharray:3 2}
.new{fill:var(--new-fill);stroke:var(--new);stroke-width:1.6}
.label{fill:var(--ink)}
.chip,.gap{fill:var(--page);stroke:var(--wire)}.gap{stroke-dasharray:3 2}
.port{fill:var(--soft);stroke:var(--wire)}.join{fill:var(--page);stroke:var(--muted);stroke-width:1.2}
.fold{fill:var(--soft);stroke:none}
.wire{fill:none;stroke:var(--wire);stroke-width:1.2}.tip{fill:var(--wire)}
@media (max-width:720px){
body{padding:18px 10px 40px}
.big{font-size:48px}
h2{margin-top:34px}
.nets{justify-content:center}
table.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table.cards,table.cards tbody,table.cards tfoot{display:block}
table.cards tr{display:block;border:1px solid var(--line);border-radius:8px;padding:8px 10px;margin:8px 0}
table.cards th,table.cards td{display:flex;justify-content:space-between;gap:14px;border:0;
padding:2px 0;text-align:right}
table.cards th[scope=row]{display:block;text-align:left;font-weight:600;padding-bottom:4px}
table.cards td::before{content:attr(data-label);color:var(--muted);text-align:left;white-space:nowrap;
overflow-wrap:normal;font-weight:400}
table.cards td:empty{display:none}
table.cards .bar{display:none}
.facts,.facts tbody,.facts tr,.facts th,.facts td{display:block}
.facts th{border:0;padding:6px 0 0}.facts td{padding:0 0 6px}
}
@media print{
body{max-width:none;padding:0;font-size:10.5pt}
h2{break-after:avoid;margin-top:22pt}
.nets div,.pair figure,.tiles div,tr,.warning,pre{break-inside:avoid}
.nets{gap:10px}.nets div{width:31.5%}
.pair{grid-template-columns:1fr 1fr}
table{font-size:8.5pt}td small,th small,thead th,.tiles dt,.tiles dd small,.note,figcaption{font-size:8pt}
tfoot{display:table-row-group}
a{color:inherit;text-decoration:none}
}
"""
